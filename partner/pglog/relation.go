package pglog

// Relation describes a table as the principal had it when the rows that follow were written. PostgreSQL sends it before
// the first row of the table and again after each change, in every connection.
type Relation struct {
	OID             uint32
	Namespace, Name string // an empty namespace is pg_catalog
	// Identity is the replica identity: 'd' the primary key, 'n' nothing, 'f' the whole row, 'i' an index.
	Identity byte
	Columns  []RelColumn
}

// RelColumn is a published column. Key is true when it is part of the replica identity; with identity 'f' every column
// is.
type RelColumn struct {
	Key     bool
	Name    string
	TypeOID uint32
	TypeMod int32
}

func relation(r *reader) Relation {
	rel := Relation{
		OID:       r.uint32("relation"),
		Namespace: r.string("namespace"),
		Name:      r.string("relation name"),
		Identity:  r.byte("replica identity"),
	}
	// The count is not trusted with memory before the columns are seen: each takes ten bytes or more.
	count := int(r.uint16("column count"))
	if count > maxColumns {
		r.fail("column count of a table")
		return rel
	}
	rel.Columns = make([]RelColumn, 0, min(count, len(r.data)/10))
	for range count {
		column := RelColumn{
			Key:     r.flag("column flags"),
			Name:    r.string("column name"),
			TypeOID: r.uint32("column type"),
			TypeMod: int32(r.uint32("type modifier")),
		}
		if r.what != "" {
			return rel
		}
		rel.Columns = append(rel.Columns, column)
	}
	return rel
}
