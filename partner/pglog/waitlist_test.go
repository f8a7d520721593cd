package pglog

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestWaitListReadsWhatPostgresReads(t *testing.T) {
	for value, want := range map[string]waitList{
		"":                                   {},
		"  ":                                 {},
		"a":                                  {others: []string{"a"}},
		`"a b"`:                              {others: []string{"a b"}},
		"FIRST 2 (a, b)":                     {others: []string{"a", "b"}},
		"first 2(a,b)":                       {others: []string{"a", "b"}},
		"2 (a, \"q\"\"x\")":                  {others: []string{"a", `q"x`}},
		"ANY 1 (a)":                          {others: []string{"a"}},
		`FIRST 1 ("any")`:                    {others: []string{"any"}},
		`FIRST 2 ("dbmirror_abcd1234_1", a)`: {ours: []string{"dbmirror_abcd1234_1"}, others: []string{"a"}},
		"DBMIRROR_x_closed":                  {ours: []string{"DBMIRROR_x_closed"}},
	} {
		got, err := parseWaitList(value)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
	}
}

func TestWaitListRefusesWhatCannotBeJoined(t *testing.T) {
	for value, mend := range map[string]string{
		"a, b":             `FIRST 2 ("a", "b")`,
		"ANY 1 (a, b)":     `FIRST 2 ("a", "b")`,
		"FIRST 1 (a, b)":   `FIRST 2 ("a", "b")`,
		"FIRST 3 (a, b)":   `FIRST 2 ("a", "b")`,
		"*":                "name the standbys",
		"FIRST 2 (a, *)":   "name the standbys",
		"FIRST x (a)":      "correct it",
		"FIRST 2 (a b)":    "correct it",
		"FIRST 1 (a":       "correct it",
		"FIRST 1 ((a))":    "correct it",
		"a,":               "correct it",
		`"a`:               "correct it",
		"FIRST 1 FIRST(a)": "correct it",
	} {
		_, err := parseWaitList(value)
		var refused *WaitListError
		require.ErrorAs(t, err, &refused, value)
		require.Contains(t, err.Error(), mend, value)
	}
}

func TestWaitListComposesWhatItReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z "*(),A-Z0-9_]{1,8}x`)
		l := waitList{
			ours:   rapid.SliceOfN(rapid.StringMatching(`dbmirror_[a-z0-9]{4}_(closed|restart|1_x)`), 0, 3).Draw(t, "ours"),
			others: rapid.SliceOfN(name, 0, 3).Draw(t, "others"),
		}
		got, err := parseWaitList(l.String())
		if err != nil {
			t.Fatal(err)
		}
		require.Equal(t, l.String(), got.String())
		require.ElementsMatch(t, l.ours, got.ours)
		require.ElementsMatch(t, l.others, got.others)
	})
}

func TestWaitListKeepsTheNamesOfOthers(t *testing.T) {
	l, err := parseWaitList(`FIRST 4 (dbmirror_aaaaaaaa_7, dbmirror_bbbbbbbb_restart, dbmirror_cccccccc_closed, theirs)`)
	require.NoError(t, err)
	require.Equal(t, `FIRST 3 ("dbmirror_cccccccc_closed", "dbmirror_aaaaaaaa_closed", "theirs")`,
		l.inForce().with("dbmirror_aaaaaaaa_", "dbmirror_aaaaaaaa_closed").String())
	require.Equal(t, `FIRST 3 ("dbmirror_bbbbbbbb_restart", "dbmirror_cccccccc_closed", "theirs")`, l.with("dbmirror_aaaaaaaa_", "").String())
	require.Empty(t, waitList{}.with("dbmirror_aaaaaaaa_", "").String())
	require.Equal(t, "dbmirror_aaaaaaaa_7", l.own("dbmirror_aaaaaaaa_"))
}

func TestWaitListKeepsWhatARestartWaitsFor(t *testing.T) {
	earlier, err := parseWaitList(`FIRST 4 (dbmirror_aaaaaaaa_7, dbmirror_bbbbbbbb_restart, dbmirror_cccccccc_restart, theirs)`)
	require.NoError(t, err)
	now, err := parseWaitList(`FIRST 2 (dbmirror_cccccccc_8, others)`)
	require.NoError(t, err)
	require.Equal(t, `FIRST 3 ("dbmirror_cccccccc_8", "dbmirror_bbbbbbbb_restart", "others")`, now.withRestarts(earlier).String())
	require.Equal(t, now, now.withRestarts(now))
}
