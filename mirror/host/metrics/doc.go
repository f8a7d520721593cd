// Package metrics shows sessions to Prometheus.
//
// A Collector reads snapshots when it is scraped and keeps no numbers of its own; a program registers it where it likes:
//
//	timings := metrics.NewTimings("orders", mirror.PartnerA)
//	registry.MustRegister(metrics.NewCollector(snapshots), timings)
//
// Every metric begins with dbmirror_, carries the session and the server, never a role in its name, and is used by a
// graph or an alert of docs/metrics.md: what nobody looks at is not exported. A partner exports about 165 series, a
// witness about 107; no label value comes from outside.
package metrics
