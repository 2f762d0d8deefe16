package oci

import "bytes"

// CountValues tells how many values a JSON document has, without decoding it:
// what begins one (a list, an object, a field) or follows another. Of what is
// no JSON it tells nothing of use, and takes no longer.
func CountValues(doc []byte) int {
	n := 1
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '[', '{', ':', ',':
			n++
		case '"':
			i = endOfString(doc, i+1)
		}
	}
	return n
}

// endOfString is where the string ends whose text begins at i.
func endOfString(doc []byte, i int) int {
	for i < len(doc) {
		next := bytes.IndexAny(doc[i:], `"\`)
		switch {
		case next < 0:
			return len(doc)
		case doc[i+next] == '"':
			return i + next
		}
		i += next + 2 // over what is escaped
	}
	return i
}
