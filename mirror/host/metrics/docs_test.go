package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// exportedNames lists what the package exports, by the descriptions that a registry gets.
func exportedNames() []string {
	to := make(chan *prometheus.Desc, 200)
	collector().Describe(to)
	NewTimings("s", mirror.PartnerA).Describe(to)
	close(to)
	var names []string
	for d := range to {
		names = append(names, regexp.MustCompile(`fqName: "([a-z_]+)"`).FindStringSubmatch(d.String())[1])
	}
	return names
}

// named lists the metrics that a page of docs names.
func named(t *testing.T, page string) []string {
	text, err := os.ReadFile("../../../docs/" + page)
	require.NoError(t, err)
	var names []string
	for _, name := range regexp.MustCompile(`dbmirror_[a-z_]+`).FindAllString(string(text), -1) {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if whole := strings.TrimSuffix(name, part); slices.Contains(exportedNames(), whole) {
				name = whole
			}
		}
		names = append(names, name)
	}
	return names
}

// TestDocsNameWhatIsExported: nothing in an alert, a graph or the manual is about a metric that does not exist.
func TestDocsNameWhatIsExported(t *testing.T) {
	for _, page := range []string{"metrics.md", "alerts.yml", "dashboard.json"} {
		names := named(t, page)
		require.NotEmpty(t, names, page)
		for _, name := range names {
			require.Contains(t, exportedNames(), name, page)
		}
	}
}

// TestWhatIsExportedIsUsed: a metric that nobody looks at is not exported, and each has its line in the manual.
func TestWhatIsExportedIsUsed(t *testing.T) {
	used := append(named(t, "alerts.yml"), named(t, "dashboard.json")...)
	manual := named(t, "metrics.md")
	for _, name := range exportedNames() {
		require.True(t, slices.Contains(used, name), "%s: neither an alert nor a graph uses it", name)
		require.True(t, slices.Contains(manual, name), "%s: docs/metrics.md does not explain it", name)
	}
}

// TestDocsNameAlertsAndGraphs: what the manual says of a metric's use is so.
func TestDocsNameAlertsAndGraphs(t *testing.T) {
	page, err := os.ReadFile("../../../docs/metrics.md")
	require.NoError(t, err)
	alerts, err := os.ReadFile("../../../docs/alerts.yml")
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("../../../docs/dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &board))
	graphs := map[string]string{}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			graphs[p.Title] += target.Expr + "\n"
		}
	}
	rules := regexp.MustCompile(`alert: Dbmirror(\w+)\n +expr: (.*)`).FindAllStringSubmatch(string(alerts), -1)
	require.NotEmpty(t, rules)
	expressions := map[string]string{}
	for _, r := range rules {
		expressions[r[1]] = r[2]
	}
	rows := regexp.MustCompile("(?m)^\\| `(dbmirror_[a-z_]+)` .* \\| ([^|]+) \\|$").FindAllStringSubmatch(string(page), -1)
	require.Equal(t, len(exportedNames()), len(rows), "a metric has no line, or two")
	for _, row := range rows {
		for use := range strings.SplitSeq(row[2], "; ") {
			name, isAlert := strings.CutPrefix(use, "alert ")
			if isAlert {
				require.Contains(t, expressions[name], row[1], "alert %s", name)
				continue
			}
			require.Contains(t, graphs[strings.Trim(strings.TrimPrefix(use, "graph "), `"`)], row[1], use)
		}
	}
}

// TestReasonsOfAlertsExist: an alert on a reason that was renamed would never fire again.
func TestReasonsOfAlertsExist(t *testing.T) {
	alerts, err := os.ReadFile("../../../docs/alerts.yml")
	require.NoError(t, err)
	var known []string
	for _, r := range mirror.Reasons() {
		known = append(known, slug(r.String()))
	}
	list := regexp.MustCompile(`reason=~"([a-z_|]+)"`).FindStringSubmatch(string(alerts))
	require.NotNil(t, list)
	for reason := range strings.SplitSeq(list[1], "|") {
		require.Contains(t, known, reason)
	}
}
