package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file; the parser takes quadratic time and recurses, so all of
// them are checked before it sees the file.
const (
	maxFile   = 1 << 20 // bytes
	maxDepth  = 24      // levels of nesting
	maxTokens = 120_000
	maxKeys   = 20_000
)

// A shape is what a node of the file is.
type shape int

const (
	isNull shape = iota
	isBool
	isNumber
	isString
	isList
	isMap
)

func (s shape) String() string {
	return [...]string{"nothing", "a truth value", "a number", "a string", "a list", "a mapping"}[s]
}

// A node is a piece of the file: the syntax tree without what a config has no
// use for.
type node struct {
	shape shape
	at    position
	text  string // of a scalar: as written, quotes and escapes resolved
	items []*node
	pairs []pair
}

type pair struct {
	key   string
	at    position // of the key
	value *node
}

type position struct{ line, column int }

// A reader turns bytes into nodes and collects what it cannot turn.
type reader struct {
	faults []located
	// spans are where scalars stand, for masking.
	spans map[*node]span
}

// located is a fault before it gets its file and text.
type located struct {
	at         position
	what, hint string
	unset      bool
}

// span is the text of a scalar: from its beginning to the next token.
type span struct {
	from, to position // to is exclusive
}

func (r *reader) fault(at position, hint, format string, args ...any) {
	r.faults = append(r.faults, located{at: at, what: fmt.Sprintf(format, args...), hint: hint})
}

// read gives the file's one document, nil when there is none or it cannot be
// read at all.
func (r *reader) read(data []byte) (root *node) {
	start := position{1, 1}
	if len(data) > maxFile {
		r.fault(start, "a config of Twinport takes a few kilobytes; is this the right file?", "the file is larger than 1 MiB")
		return nil
	}
	if at, what := badBytes(data); what != "" {
		r.fault(at, "save the file as UTF-8 text", "%s", what)
		return nil
	}
	data = []byte(strings.TrimPrefix(string(data), "\ufeff"))
	// The parser is not ours: should it panic, that is a file it cannot read.
	defer func() {
		if p := recover(); p != nil {
			r.fault(start, "check quotes, brackets and indentation", "the file cannot be read as YAML")
			root = nil
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if !r.bounded(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		switch doc.Body.(type) {
		case *ast.DirectiveNode:
			r.fault(where(doc.Body), "remove the line", "YAML directives are not used in a config")
			continue
		case *ast.CommentGroupNode, *ast.CommentNode:
			continue
		}
		if body != nil {
			r.fault(begin(doc.Body), "a config is one document: remove the --- line, or the documents after the first", "a second YAML document")
			break
		}
		body = doc.Body
	}
	if body == nil {
		r.fault(start, "a config needs registries and routes", "the file is empty")
		return nil
	}
	return r.convert(body, 0)
}

// badBytes finds what is no text.
func badBytes(data []byte) (position, string) {
	at := position{1, 1}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && n <= 1:
			return at, "a byte that is no UTF-8"
		case c < ' ' && c != '\n' && c != '\r' && c != '\t', c == 0x7f:
			return at, fmt.Sprintf("a control character (%#02x)", c)
		}
		i += n
		at.column++
		if c == '\n' {
			at.line, at.column = at.line+1, 1
		}
	}
	return at, ""
}

// bounded refuses what would cost the parser too much.
func (r *reader) bounded(tokens token.Tokens) bool {
	const simpler = "write the config with less nesting"
	if len(tokens) > maxTokens {
		r.fault(position{1, 1}, "split it: one daemon per group of registries", "the file has more than %d pieces", maxTokens)
		return false
	}
	keys, flow, line, inLine := 0, 0, 0, 0
	var levels []int // columns of open block levels
	for _, t := range tokens {
		if t == nil || t.Position == nil {
			continue
		}
		at := position{t.Position.Line, t.Position.Column}
		if t.Position.Line != line {
			line, inLine = t.Position.Line, 0
			if flow == 0 {
				for len(levels) > 0 && levels[len(levels)-1] >= at.column {
					levels = levels[:len(levels)-1]
				}
				levels = append(levels, at.column)
			}
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.AliasType:
			inLine++
		case token.MappingValueType:
			if keys++; keys > maxKeys {
				r.fault(at, "split it: one daemon per group of registries", "the file has more than %d keys", maxKeys)
				return false
			}
		}
		if max(flow, 0)+len(levels)+inLine > maxDepth {
			r.fault(at, simpler, "nested more than %d levels deep", maxDepth)
			return false
		}
	}
	return true
}

// syntax reports the parser's one fault.
func (r *reader) syntax(err error) {
	at, what := position{1, 1}, "the file cannot be read as YAML"
	hint := "check quotes, brackets and indentation"
	var told interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &told) {
		if t := told.GetToken(); t != nil && t.Position != nil {
			at = position{max(1, t.Position.Line), max(1, t.Position.Column)}
		}
		message := told.GetMessage()
		switch {
		case strings.ContainsRune(message, '\t') || strings.Contains(message, "tab character"):
			message, hint = "a tab where YAML wants spaces", "indent with spaces"
		case strings.Contains(message, "mapping value is not allowed"):
			hint = "put a text that contains \": \" in quotes, and keys of one mapping at one indentation"
		case strings.Contains(message, "quoted text"):
			hint = "close the quote"
		case strings.Contains(message, "must be specified"), strings.Contains(message, "not found"):
			hint = "close the bracket"
		}
		if message != "" {
			what = "YAML: " + message
		}
	}
	r.fault(at, hint, "%s", what)
}

func where(n ast.Node) position {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return position{1, 1}
	}
	p := n.GetToken().Position
	return position{max(1, p.Line), max(1, p.Column)}
}

// begin is where a node's text begins: a block mapping's first key.
func begin(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return where(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return where(n.Key)
	}
	return where(n)
}

// convert makes our nodes; what a config does not use is a fault and nil.
func (r *reader) convert(n ast.Node, depth int) *node {
	at := begin(n)
	if depth > maxDepth {
		r.fault(at, "write the config with less nesting", "nested more than %d levels deep", maxDepth)
		return nil
	}
	switch n := n.(type) {
	case nil:
		return &node{shape: isNull, at: at}
	case *ast.NullNode:
		return &node{shape: isNull, at: at}
	case *ast.BoolNode:
		return r.scalar(isBool, n, n.Token.Value)
	case *ast.IntegerNode:
		return r.scalar(isNumber, n, n.Token.Value)
	case *ast.FloatNode:
		return r.scalar(isNumber, n, n.Token.Value)
	case *ast.InfinityNode, *ast.NanNode:
		return r.scalar(isNumber, n, n.GetToken().Value)
	case *ast.StringNode:
		return r.scalar(isString, n, n.Value)
	case *ast.LiteralNode:
		out := r.scalar(isString, n, "")
		if n.Value != nil {
			out.text = n.Value.Value
			if t := n.Value.GetToken(); t != nil {
				r.spans[out] = span{at, after(t)}
			}
		}
		return out
	case *ast.SequenceNode:
		out := &node{shape: isList, at: at}
		for _, item := range n.Values {
			if child := r.convert(item, depth+1); child != nil {
				out.items = append(out.items, child)
			}
		}
		return out
	case *ast.MappingNode:
		out := &node{shape: isMap, at: at}
		for _, v := range n.Values {
			r.pair(out, v, depth)
		}
		return out
	case *ast.MappingValueNode:
		out := &node{shape: isMap, at: at}
		r.pair(out, n, depth)
		return out
	case *ast.AnchorNode, *ast.AliasNode:
		r.fault(at, "write the value out where it is used", "YAML anchors and aliases are not used in a config")
	case *ast.TagNode:
		r.fault(at, "remove the tag; put quotes around what is to be a string", "YAML tags are not used in a config")
	default:
		r.fault(at, "write it as a plain value", "this kind of YAML is not used in a config")
	}
	return nil
}

func (r *reader) scalar(s shape, n ast.Node, text string) *node {
	out := &node{shape: s, at: where(n), text: text}
	if t := n.GetToken(); t != nil && t.Position != nil {
		r.spans[out] = span{out.at, after(t)}
	}
	return out
}

// after is where the token behind t begins.
func after(t *token.Token) position {
	if t.Next != nil && t.Next.Position != nil {
		return position{t.Next.Position.Line, t.Next.Position.Column}
	}
	return position{1 << 30, 1}
}

func (r *reader) pair(out *node, v *ast.MappingValueNode, depth int) {
	at := where(v.Key)
	var key string
	switch k := v.Key.(type) {
	case *ast.StringNode:
		key = k.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		key = k.GetToken().Value
	case *ast.MergeKeyNode:
		r.fault(at, "write the keys out where they are used", "YAML merge keys (<<) are not used in a config")
		return
	default:
		r.fault(at, "write the key as a plain word", "this kind of YAML key is not used in a config")
		return
	}
	if value := r.convert(v.Value, depth+1); value != nil {
		out.pairs = append(out.pairs, pair{key: key, at: at, value: value})
	} else {
		// Its fault is told; the key still counts as given.
		out.pairs = append(out.pairs, pair{key: key, at: at})
	}
}
