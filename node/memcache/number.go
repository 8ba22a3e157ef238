package memcache

import "math"

// Numbers are read as memcached's safe_strtoul and its siblings read them (util.c): leading white
// space and one sign are accepted, and white space ends the number whatever follows. A space can
// never be part of a word, but a tab can.

func isSpace(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }

// parseNumber splits word into sign and magnitude; not ok when it is no number or beyond 64 bits.
func parseNumber(word []byte) (n uint64, negative, ok bool) {
	i := 0
	for i < len(word) && isSpace(word[i]) {
		i++
	}
	if i < len(word) && (word[i] == '+' || word[i] == '-') {
		negative = word[i] == '-'
		i++
	}
	first := i
	for ; i < len(word) && word[i] >= '0' && word[i] <= '9'; i++ {
		d := uint64(word[i] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false, false
		}
		n = n*10 + d
	}
	if i == first || i < len(word) && !isSpace(word[i]) {
		return 0, false, false
	}
	return n, negative, true
}

// parseUint reads an unsigned number of at most limit.
func parseUint(word []byte, limit uint64) (uint64, bool) {
	n, negative, ok := parseNumber(word)
	return n, ok && n <= limit && (!negative || n == 0)
}

// parseInt reads a signed number.
func parseInt(word []byte) (int64, bool) {
	n, negative, ok := parseNumber(word)
	switch {
	case !ok || n > math.MaxInt64:
		return 0, false
	case negative:
		return -int64(n), true
	}
	return int64(n), true
}
