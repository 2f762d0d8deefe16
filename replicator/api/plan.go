package api

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// plannedInMemory is how many actions of a plan are held; more are in a file.
const plannedInMemory = 4096

// A Plan answers POST /api/v1/plan and `twinport plan`: what a sync would do,
// by route, destination, repository, tag and action. A first pass may have
// millions of actions, so that most are in a file without a name, in sorted
// runs; Close lets it go.
type Plan struct {
	Requests int64

	dir    string
	buffer []Action
	file   *os.File
	size   int64
	runs   []plannedRun
	busy   bool // something is more than skipped
}

// A plannedRun is a sorted part of the file: a JSON value a line.
type plannedRun struct{ from, to int64 }

// Action is what a sync would do about one tag.
type Action struct {
	Route                 string  `json:"route"`
	Destination           string  `json:"destination"`
	Repository            string  `json:"repository"`
	DestinationRepository string  `json:"destinationRepository"`
	Tag                   string  `json:"tag"`
	Digest                *string `json:"digest"`
	Action                string  `json:"action"`
	Reason                string  `json:"reason"`
	Bytes                 int64   `json:"bytes"`
}

func compareActions(a, b Action) int {
	return cmp.Or(cmp.Compare(a.Route, b.Route), cmp.Compare(a.Destination, b.Destination),
		cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Action, b.Action))
}

// NewPlan makes an empty plan; dir is where its file goes, empty: the system's
// place for such files.
func NewPlan(dir string) *Plan { return &Plan{dir: dir} }

// Add puts an action into the plan, in any order.
func (p *Plan) Add(a Action) error {
	p.busy = p.busy || a.Action != "skip"
	if p.buffer = append(p.buffer, a); len(p.buffer) < plannedInMemory {
		return nil
	}
	if err := p.spill(); err != nil {
		return fmt.Errorf("keep the plan's actions: %w", err)
	}
	return nil
}

// Empty tells whether the plan has nothing to do but skip.
func (p *Plan) Empty() bool { return !p.busy }

// Close lets the plan's file go.
func (p *Plan) Close() error {
	if p == nil || p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}

func (p *Plan) spill() error {
	if p.file == nil {
		file, err := os.CreateTemp(p.dir, "twinport-plan-*")
		if err != nil {
			return err
		}
		p.file = file
		if err := os.Remove(file.Name()); err != nil {
			return err
		}
	}
	slices.SortFunc(p.buffer, compareActions)
	w := bufio.NewWriterSize(io.NewOffsetWriter(p.file, p.size), 1<<16)
	run := plannedRun{from: p.size, to: p.size}
	for _, a := range p.buffer {
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		n, err := w.Write(append(line, '\n'))
		if err != nil {
			return err
		}
		run.to += int64(n)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	p.runs, p.size = append(p.runs, run), run.to
	clear(p.buffer)
	p.buffer = p.buffer[:0]
	return nil
}

// Each gives the actions in order; f's error ends it.
func (p *Plan) Each(f func(Action) error) error {
	slices.SortFunc(p.buffer, compareActions)
	var runs plannedHeap
	begin := func(r *plannedReader) error {
		ok, err := r.advance()
		if ok {
			heap.Push(&runs, r)
		}
		return err
	}
	for i, run := range p.runs {
		section := io.NewSectionReader(p.file, run.from, run.to-run.from)
		if err := begin(&plannedReader{order: i, lines: json.NewDecoder(bufio.NewReaderSize(section, 4096))}); err != nil {
			return err
		}
	}
	if err := begin(&plannedReader{order: len(p.runs), rest: p.buffer}); err != nil {
		return err
	}
	for len(runs) > 0 {
		r := runs[0]
		if err := f(r.head); err != nil {
			return err
		}
		ok, err := r.advance()
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(&runs, 0)
		} else {
			heap.Pop(&runs)
		}
	}
	return nil
}

// A plannedReader is a run in the file, or what is still in memory.
type plannedReader struct {
	order int
	head  Action
	lines *json.Decoder
	rest  []Action
}

func (r *plannedReader) advance() (bool, error) {
	if r.lines == nil {
		if len(r.rest) == 0 {
			return false, nil
		}
		r.head, r.rest = r.rest[0], r.rest[1:]
		return true, nil
	}
	r.head = Action{}
	err := r.lines.Decode(&r.head)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the plan's actions: %w", err)
	}
	return true, nil
}

type plannedHeap []*plannedReader

func (h plannedHeap) Len() int { return len(h) }
func (h plannedHeap) Less(i, j int) bool {
	return cmp.Or(compareActions(h[i].head, h[j].head), cmp.Compare(h[i].order, h[j].order)) < 0
}
func (h plannedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *plannedHeap) Push(x any)   { *h = append(*h, x.(*plannedReader)) }
func (h *plannedHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	*h = (*h)[:last]
	return r
}

// WriteJSON writes the plan as every other answer is written, action by action:
// {"actions":[…],"requests":n}.
func (p *Plan) WriteJSON(to io.Writer) error {
	w := bufio.NewWriterSize(to, 1<<16)
	between := "{\n  \"actions\": ["
	some := false
	err := p.Each(func(a Action) error {
		line, err := json.MarshalIndent(a, "    ", "  ")
		if err != nil {
			return err
		}
		_, _ = w.WriteString(between + "\n    ") // Flush tells of errors
		_, _ = w.Write(line)
		between, some = ",", true
		return nil
	})
	if err != nil {
		return err
	}
	if some {
		between = "\n  "
	}
	fmt.Fprintf(w, "%s],\n  \"requests\": %d\n}\n", between, p.Requests)
	return w.Flush()
}

// ReadPlan reads what WriteJSON wrote; where it fails nothing is left to close.
func ReadPlan(r io.Reader, dir string) (*Plan, error) {
	p := NewPlan(dir)
	if err := p.read(json.NewDecoder(r)); err != nil {
		return nil, errors.Join(fmt.Errorf("read a plan: %w", err), p.Close())
	}
	return p, nil
}

func (p *Plan) read(in *json.Decoder) error {
	if err := delimiter(in, '{'); err != nil {
		return err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		switch key {
		case "actions":
			err = p.readActions(in)
		case "requests":
			err = in.Decode(&p.Requests)
		default:
			var skipped json.RawMessage
			err = in.Decode(&skipped)
		}
		if err != nil {
			return err
		}
	}
	return delimiter(in, '}')
}

func (p *Plan) readActions(in *json.Decoder) error {
	if err := delimiter(in, '['); err != nil {
		return err
	}
	for in.More() {
		var a Action
		if err := in.Decode(&a); err != nil {
			return err
		}
		if err := p.Add(a); err != nil {
			return err
		}
	}
	return delimiter(in, ']')
}

func delimiter(in *json.Decoder, want json.Delim) error {
	token, err := in.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%v where %v was to come", token, want)
	}
	return err
}
