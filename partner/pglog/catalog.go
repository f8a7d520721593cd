package pglog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Catalog describes every object of users in one database, in a form that is the same on every server that holds the
// same definitions. What is ours, what belongs to an extension and what is temporary is not in it.
type Catalog struct {
	// Lines are sorted by Kind, Object and Definition.
	Lines []CatalogLine
}

// CatalogLine is one property of one object.
type CatalogLine struct {
	Kind       string // such as "table", "column", "constraint"
	Object     string // quoted as SQL
	Definition string
}

// Hash returns a fingerprint of what rows depend on (tables, columns, types, keys and constraints): two databases of
// one major version with equal hashes can take each other's log. It is hexadecimal.
func (c Catalog) Hash() string {
	h := sha256.New()
	for _, line := range c.Lines {
		if line.severity() == Fatal {
			fmt.Fprintf(h, "%q %q %q\n", line.Kind, line.Object, line.Definition)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// severity of a difference in this line. Rows cannot be redone, or would not be the same, when a table differs; a view
// or function that differs harms only after a failover.
func (l CatalogLine) severity() Severity {
	switch l.Kind {
	case "table", "column", "key", "constraint", "type", "replica identity", "unique index":
		return Fatal
	}
	return Warning
}

// ReadCatalog reads the catalog of the database that conn is connected to.
func ReadCatalog(ctx context.Context, conn *pgx.Conn) (Catalog, error) {
	var c Catalog
	err := readOnly(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, catalogQuery)
		if err != nil {
			return err
		}
		c.Lines, err = pgx.CollectRows(rows, pgx.RowToStructByPos[CatalogLine])
		return err
	})
	if err != nil {
		return Catalog{}, fmt.Errorf("read catalog: %w", err)
	}
	slices.SortFunc(c.Lines, compareLines)
	return c, nil
}

func compareLines(a, b CatalogLine) int {
	return strings.Compare(a.Kind+"\x00"+a.Object+"\x00"+a.Definition, b.Kind+"\x00"+b.Object+"\x00"+b.Definition)
}

// Drift compares the definitions in two databases and returns one finding for each object that is missing at one of them
// or defined in another way. It may be called at any time: DDL that runs on the principal while it reads shows as drift
// until the mirror has it too.
func Drift(ctx context.Context, principal, mirror *pgx.Conn) ([]Finding, error) {
	from, err := ReadCatalog(ctx, principal)
	if err != nil {
		return nil, fmt.Errorf("drift, principal: %w", err)
	}
	to, err := ReadCatalog(ctx, mirror)
	if err != nil {
		return nil, fmt.Errorf("drift, mirror: %w", err)
	}
	return CompareCatalogs(from, to), nil
}

// CompareCatalogs is Drift for catalogs that were read already. An object that is defined at both sides, but in two
// ways, is one finding.
func CompareCatalogs(principal, mirror Catalog) []Finding {
	missing, extra := linesNotIn(principal.Lines, mirror.Lines), linesNotIn(mirror.Lines, principal.Lines)
	type key struct{ kind, object string }
	atMirror := map[key]string{}
	for _, line := range extra {
		atMirror[key{line.Kind, line.Object}] = line.Definition
	}
	var findings []Finding
	add := func(line CatalogLine, text string) {
		findings = append(findings, Finding{Severity: line.severity(), Code: CodeSchemaDrift, Server: serverMirror,
			Object: line.Kind + " " + line.Object, Text: text})
	}
	for _, line := range missing {
		k := key{line.Kind, line.Object}
		if other, differs := atMirror[k]; differs {
			add(line, fmt.Sprintf("it is %q at the mirror and %q at the principal", abbreviate(other), abbreviate(line.Definition)))
			delete(atMirror, k)
			continue
		}
		add(line, fmt.Sprintf("it is missing at the mirror; at the principal it is %q", abbreviate(line.Definition)))
	}
	for _, line := range extra {
		if _, only := atMirror[key{line.Kind, line.Object}]; only {
			add(line, "the principal does not have it")
		}
	}
	return findings
}

func linesNotIn(lines, others []CatalogLine) []CatalogLine {
	var only []CatalogLine
	for _, line := range lines {
		if _, found := slices.BinarySearchFunc(others, line, compareLines); !found {
			only = append(only, line)
		}
	}
	return only
}

// abbreviate keeps a definition to a readable length.
func abbreviate(s string) string {
	const limit = 200
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "..."
	}
	return s
}
