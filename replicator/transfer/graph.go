package transfer

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxManifests bounds one graph, maxManifestBytes what one copy holds of
	// them and maxHeldBytes what all copies of the process do; a copy may always
	// hold one manifest. Of each manifest its bytes count, and valueBytes for
	// each value, which is what they take once they are read.
	maxManifests     = 10_000
	maxManifestBytes = 64 << 20
	maxHeldBytes     = 96 << 20
	valueBytes       = 48
	// readersPerLevel is how many manifests of one copy are read side by side.
	readersPerLevel = 16
)

// A node is one manifest of a graph.
type node struct {
	manifest oci.Manifest
	refs     oci.References
	// children are its manifests; what an index lists with another type is
	// content like a layer's (BuildKit's caches do that) and is among blobs.
	children []v1.Descriptor
	blobs    []v1.Descriptor
	foreign  bool
}

// A graph is a root and all it names.
type graph struct {
	root *node
	// levels are the manifests below the root, leaves first: each one's
	// children are in earlier levels.
	levels [][]*node
	// blobs are the distinct ones.
	blobs   []v1.Descriptor
	foreign bool
}

// A load is one manifest being read from the source, once for all destinations.
type load struct {
	done chan struct{} // closed when the rest is set
	node *node
	err  error
}

// parse makes a node of a manifest.
func parse(m oci.Manifest) (*node, error) {
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return nil, err
	}
	m.MediaType = refs.MediaType // what the bytes say goes before what a header said
	n := &node{manifest: m, refs: refs, foreign: len(refs.Foreign) > 0}
	n.blobs = refs.Blobs
	for _, child := range refs.Manifests {
		switch {
		case oci.IsManifest(child.MediaType) || child.MediaType == "":
			n.children = append(n.children, child)
		case oci.IsForeign(child):
			n.foreign = true
		default:
			n.blobs = append(n.blobs, child)
		}
	}
	return n, nil
}

// load reads a root's graph from the source, level by level.
func (k *copying) load(ctx context.Context, root oci.Manifest) (*graph, error) {
	top, err := parse(root)
	if err != nil {
		return nil, asSource(err)
	}
	if err := k.hold(root); err != nil {
		return nil, err
	}
	nodes := map[digest.Digest]*node{root.Digest: top}
	level := []*node{top}
	for depth := 0; len(level) > 0; depth++ {
		var wanted []v1.Descriptor
		asked := make(map[digest.Digest]bool)
		for _, n := range level {
			for _, child := range n.children {
				if nodes[child.Digest] == nil && !asked[child.Digest] {
					asked[child.Digest] = true
					wanted = append(wanted, child)
				}
			}
		}
		if len(wanted) > 0 && depth >= oci.MaxDepth {
			return nil, asSource(fmt.Errorf("%s nests deeper than %d: %w", root.Digest, oci.MaxDepth, oci.ErrInvalid))
		}
		if len(nodes)+len(wanted) > maxManifests {
			return nil, asSource(fmt.Errorf("%s has more than %d manifests: %w", root.Digest, maxManifests, oci.ErrInvalid))
		}
		read := make([]*node, len(wanted))
		group, within := errgroup.WithContext(ctx)
		group.SetLimit(readersPerLevel)
		for i, desc := range wanted {
			group.Go(func() (err error) {
				read[i], err = k.manifest(within, desc)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		for _, n := range read {
			nodes[n.manifest.Digest] = n
		}
		level = read
	}
	return arrange(top, nodes)
}

// arrange sorts a graph's nodes so that children come before parents.
func arrange(root *node, nodes map[digest.Digest]*node) (*graph, error) {
	g := &graph{root: root}
	heights := make(map[digest.Digest]int, len(nodes)) // 0: not known, -1: being found
	seen := make(map[digest.Digest]bool)
	var visit func(n *node, depth int) (int, error)
	visit = func(n *node, depth int) (int, error) {
		d := n.manifest.Digest
		switch h := heights[d]; {
		case h > 0:
			return h, nil
		case h < 0 || depth > oci.MaxDepth:
			return 0, fmt.Errorf("%s names itself or nests deeper than %d: %w", d, oci.MaxDepth, oci.ErrInvalid)
		}
		heights[d] = -1
		height := 1
		for _, child := range n.children {
			below, err := visit(nodes[child.Digest], depth+1)
			if err != nil {
				return 0, err
			}
			height = max(height, below+1)
		}
		heights[d] = height
		g.foreign = g.foreign || n.foreign
		for _, desc := range n.blobs {
			if !seen[desc.Digest] {
				seen[desc.Digest] = true
				g.blobs = append(g.blobs, desc)
			}
		}
		if n != root {
			for len(g.levels) < height {
				g.levels = append(g.levels, nil)
			}
			g.levels[height-1] = append(g.levels[height-1], n)
		}
		return height, nil
	}
	if _, err := visit(root, 0); err != nil {
		return nil, asSource(err)
	}
	return g, nil
}

// manifest reads one manifest of the source, once in this copying; an error is
// forgotten, so that it can be tried again.
func (k *copying) manifest(ctx context.Context, desc v1.Descriptor) (*node, error) {
	k.mu.Lock()
	l := k.loaded[desc.Digest]
	first := l == nil
	if first {
		l = &load{done: make(chan struct{})}
		k.loaded[desc.Digest] = l
	}
	k.mu.Unlock()
	if first {
		l.node, l.err = k.read(ctx, desc)
		close(l.done)
	} else {
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if l.err != nil {
		k.mu.Lock()
		if k.loaded[desc.Digest] == l {
			delete(k.loaded, desc.Digest)
		}
		k.mu.Unlock()
		return nil, &digestError{desc.Digest, l.err}
	}
	if size := int64(len(l.node.manifest.Bytes)); size != desc.Size {
		return nil, asSource(fmt.Errorf("manifest %s has %d bytes, its descriptor says %d: %w", desc.Digest, size, desc.Size, oci.ErrMismatch))
	}
	return l.node, nil
}

func (k *copying) read(ctx context.Context, desc v1.Descriptor) (*node, error) {
	m, err := k.req.Source.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), desc.Digest.String())
	if err != nil {
		return nil, asSource(fmt.Errorf("read manifest %s: %w", desc.Digest, err))
	}
	if m.Digest != desc.Digest || !matches(m) {
		return nil, asSource(fmt.Errorf("read manifest %s: %w", desc.Digest, oci.ErrMismatch))
	}
	if err := k.hold(m); err != nil {
		return nil, err
	}
	if !oci.IsManifest(m.MediaType) && desc.MediaType != "" {
		m.MediaType = desc.MediaType
	}
	n, err := parse(m)
	if err != nil {
		return nil, asSource(err)
	}
	k.step(Progress{Step: StepManifestRead, Destination: -1, Digest: desc.Digest, Bytes: int64(len(m.Bytes))})
	return n, nil
}

// matches tells whether a manifest's bytes are its digest.
func matches(m oci.Manifest) bool {
	return oci.CheckDigest(m.Digest) == nil && m.Digest.Algorithm().FromBytes(m.Bytes) == m.Digest
}

// hold counts what a manifest takes against the bounds.
func (k *copying) hold(m oci.Manifest) error {
	n := int64(len(m.Bytes)) + valueBytes*int64(oci.CountValues(m.Bytes))
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.c.manifestBytes.Add(n)
	k.held += n
	if k.held > maxManifestBytes {
		return asSource(fmt.Errorf("the manifests of %s exceed %d bytes: %w", k.req.Root.Digest, maxManifestBytes, oci.ErrInvalid))
	}
	if all > maxHeldBytes && k.held > n {
		return fmt.Errorf("the manifests of all copies under way exceed %d bytes: %w", maxHeldBytes, oci.ErrInterrupted)
	}
	return nil
}
