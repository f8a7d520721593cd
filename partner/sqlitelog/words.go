package sqlitelog

import "strings"

// firstWord is the first word of a statement in upper case, without comments before it.
func firstWord(sql string) string { return firstWords(sql, 1) }

func firstWords(sql string, n int) string {
	var words []string
	for len(words) < n {
		sql = skipBlank(sql)
		word := wordAt(sql)
		if word == "" {
			break
		}
		words = append(words, strings.ToUpper(word))
		sql = sql[len(word):]
	}
	return strings.Join(words, " ")
}

// wordAt is the word that a text begins with.
func wordAt(sql string) string {
	end := strings.IndexFunc(sql, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	})
	if end < 0 {
		return sql
	}
	return sql[:end]
}

// skipBlank removes white space, comments and empty statements from the beginning, all that SQLite takes for such: what it
// runs unseen would not be mirrored. The end of a comment does not begin in its first two characters.
func skipBlank(sql string) string {
	for {
		trimmed := strings.TrimLeft(sql, " \t\r\n\v\f;\ufeff")
		switch {
		case strings.HasPrefix(trimmed, "--"):
			_, after, found := strings.Cut(trimmed, "\n")
			if !found {
				return ""
			}
			sql = after
		case strings.HasPrefix(trimmed, "/*"):
			_, after, found := strings.Cut(trimmed[2:], "*/")
			if !found {
				return ""
			}
			sql = after
		default:
			return trimmed
		}
	}
}
