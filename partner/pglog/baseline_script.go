package pglog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// splitScript divides what pg_dump has written into statements, without the semicolons at their ends and without
// comments before them. It knows what psql knows: strings, quoted names, dollar quotes, nested comments, parentheses, and
// the bodies of SQL functions from BEGIN ATOMIC to END. Of psql's own commands it passes over \restrict and \unrestrict,
// with which newer versions of pg_dump protect psql; any other is an error and nothing is ever run for it.
func splitScript(script []byte) ([]string, error) {
	s := scriptScanner{script: script, start: -1}
	for s.at < len(script) {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	if s.start >= 0 {
		return nil, fmt.Errorf("schema script: a statement at byte %d has no end", s.start)
	}
	return s.statements, nil
}

// scriptScanner walks over a script. start is where the current statement begins, -1 between two.
type scriptScanner struct {
	script     []byte
	at, start  int
	parens     int
	begins     int      // BEGIN and CASE that are open in the body of a function
	words      []string // the first words of the statement, lower case
	statements []string
}

func (s *scriptScanner) step() error {
	rest := s.script[s.at:]
	c := rest[0]
	switch {
	case c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f':
		s.at++
		return nil
	case bytes.HasPrefix(rest, []byte("--")):
		s.skip(bytes.IndexByte(rest, '\n'))
		return nil
	case bytes.HasPrefix(rest, []byte("/*")):
		return s.comment()
	case c == '\\':
		return s.backslash(rest)
	}
	if s.start < 0 {
		s.start = s.at
	}
	switch {
	case c == '\'' || c == '"':
		return s.quoted(c, false)
	case c == '$':
		return s.dollar()
	case isWordStart(c):
		return s.word()
	case c == '(':
		s.parens++
	case c == ')':
		s.parens--
	case c == ';' && s.parens == 0 && s.begins == 0:
		s.statements = append(s.statements, string(s.script[s.start:s.at]))
		s.start, s.words = -1, s.words[:0]
	}
	s.at++
	return nil
}

// skip moves over n bytes, or to the end when n is negative because an end was not found.
func (s *scriptScanner) skip(n int) {
	if n < 0 {
		n = len(s.script) - s.at
	}
	s.at += n
}

func (s *scriptScanner) comment() error {
	depth, begin := 0, s.at
	for s.at < len(s.script) {
		switch rest := s.script[s.at:]; {
		case bytes.HasPrefix(rest, []byte("/*")):
			depth++
			s.at += 2
		case bytes.HasPrefix(rest, []byte("*/")):
			depth--
			s.at += 2
			if depth == 0 {
				return nil
			}
		default:
			s.at++
		}
	}
	return fmt.Errorf("schema script: a comment at byte %d has no end", begin)
}

func (s *scriptScanner) backslash(rest []byte) error {
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	if s.start >= 0 || !bytes.HasPrefix(line, []byte(`\restrict `)) && !bytes.HasPrefix(line, []byte(`\unrestrict `)) {
		return fmt.Errorf("schema script: a command of psql at byte %d is not run", s.at)
	}
	s.skip(len(line))
	return nil
}

// quoted moves over a string or a quoted name, in which the quote is doubled, and in an E string escaped.
func (s *scriptScanner) quoted(quote byte, escapes bool) error {
	for i := s.at + 1; i < len(s.script); i++ {
		switch {
		case escapes && s.script[i] == '\\':
			i++
		case s.script[i] == quote && i+1 < len(s.script) && s.script[i+1] == quote:
			i++
		case s.script[i] == quote:
			s.at = i + 1
			return nil
		}
	}
	return fmt.Errorf("schema script: a quote at byte %d has no end", s.at)
}

// dollar moves over a dollar-quoted string, or over a dollar that begins none, as in $1.
func (s *scriptScanner) dollar() error {
	rest := s.script[s.at:]
	end := 1
	for end < len(rest) && isWordPart(rest[end]) && rest[end] != '$' && (end > 1 || !isDigit(rest[end])) {
		end++
	}
	if end == len(rest) || rest[end] != '$' {
		s.at++
		return nil
	}
	tag := rest[:end+1]
	length := bytes.Index(rest[len(tag):], tag)
	if length < 0 {
		return fmt.Errorf("schema script: a dollar quote at byte %d has no end", s.at)
	}
	s.at += len(tag) + length + len(tag)
	return nil
}

// word moves over a name or key word, which may be the prefix of an E string.
func (s *scriptScanner) word() error {
	end := s.at + 1
	for end < len(s.script) && isWordPart(s.script[end]) {
		end++
	}
	word := strings.ToLower(string(s.script[s.at:end]))
	s.at = end
	if word == "e" && end < len(s.script) && s.script[end] == '\'' {
		return s.quoted('\'', true)
	}
	if len(s.words) < 4 {
		s.words = append(s.words, word)
	}
	if s.parens == 0 && s.inRoutine() {
		s.bodyWord(word)
	}
	return nil
}

func (s *scriptScanner) bodyWord(word string) {
	switch {
	case word == "begin", word == "case" && s.begins > 0:
		s.begins++
	case word == "end" && s.begins > 0:
		s.begins--
	}
}

// inRoutine tells whether the statement began with CREATE [OR REPLACE] FUNCTION or PROCEDURE.
func (s *scriptScanner) inRoutine() bool {
	words := s.words
	if len(words) == 0 || words[0] != "create" {
		return false
	}
	words = words[1:]
	if len(words) > 2 && words[0] == "or" && words[1] == "replace" {
		words = words[2:]
	}
	return len(words) > 0 && (words[0] == "function" || words[0] == "procedure")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWordStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

func isWordPart(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }

// beginsWith tells whether a statement begins with one of several sequences of words, written as pg_dump writes them.
func beginsWith(statement string, heads ...string) bool {
	return slices.ContainsFunc(heads, func(head string) bool { return strings.HasPrefix(statement, head+" ") })
}

// headline is the first line of a statement, short enough for an error. What follows may hold the options of a user
// mapping.
func headline(statement string) string {
	line, _, _ := strings.Cut(statement, "\n")
	const limit = 120
	if runes := []rune(line); len(runes) > limit {
		return string(runes[:limit]) + "..."
	}
	return line
}
