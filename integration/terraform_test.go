package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/twinport/twinport/integration/harness"
)

// A tfModule is one directory of Terraform.
type tfModule struct {
	declared map[string]bool // var.x, local.x, data.type.name, type.name
	used     map[string]hcl.Range
	bodies   []*hclsyntax.Body
}

func parseModule(t *testing.T, dir string) *tfModule {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no .tf in %s: %v", dir, err)
	}
	m := &tfModule{declared: make(map[string]bool), used: make(map[string]hcl.Range)}
	parser := hclparse.NewParser()
	for _, file := range files {
		parsed, faults := parser.ParseHCLFile(file)
		if faults.HasErrors() {
			t.Fatalf("%s: %v", file, faults)
		}
		body := parsed.Body.(*hclsyntax.Body)
		m.bodies = append(m.bodies, body)
		for _, block := range body.Blocks {
			m.declare(t, block)
		}
		for _, block := range body.Blocks {
			if block.Type == "variable" {
				delete(block.Body.Attributes, "type") // words of the language, no references
			}
		}
		m.uses(body, nil)
	}
	return m
}

// declare notes what a block makes, each name once.
func (m *tfModule) declare(t *testing.T, block *hclsyntax.Block) {
	t.Helper()
	add := func(name string) {
		if m.declared[name] {
			t.Errorf("%s: %s is declared twice", block.DefRange(), name)
		}
		m.declared[name] = true
	}
	want := map[string]int{"variable": 1, "output": 1, "resource": 2, "data": 2, "locals": 0, "terraform": 0}
	labels, known := want[block.Type]
	if !known || len(block.Labels) != labels {
		t.Errorf("%s: a block %s with %d labels", block.DefRange(), block.Type, len(block.Labels))
		return
	}
	switch block.Type {
	case "variable":
		add("var." + block.Labels[0])
	case "output":
		add("output." + block.Labels[0])
	case "resource":
		add(strings.Join(block.Labels, "."))
	case "data":
		add("data." + strings.Join(block.Labels, "."))
	case "locals":
		for name := range block.Body.Attributes {
			add("local." + name)
		}
	}
}

// uses collects what expressions refer to; iterators are the names that dynamic
// blocks around them bring.
func (m *tfModule) uses(body *hclsyntax.Body, iterators []string) {
	for _, attribute := range body.Attributes {
		for _, traversal := range attribute.Expr.Variables() {
			if name := reference(traversal); !slices.Contains(iterators, traversal.RootName()) && name != "" {
				m.used[name] = traversal.SourceRange()
			}
		}
	}
	for _, block := range body.Blocks {
		inner := iterators
		if block.Type == "dynamic" && len(block.Labels) == 1 {
			inner = append(slices.Clone(iterators), block.Labels[0])
		}
		m.uses(block.Body, inner)
	}
}

// reference is what a traversal has to find declared, empty where Terraform
// itself knows it.
func reference(traversal hcl.Traversal) string {
	root := traversal.RootName()
	parts := []string{root}
	for _, step := range traversal[1:] {
		if attribute, ok := step.(hcl.TraverseAttr); ok {
			parts = append(parts, attribute.Name)
			continue
		}
		break
	}
	n := map[string]int{"each": 0, "count": 0, "self": 0, "path": 0, "terraform": 0, "var": 2, "local": 2, "data": 3}
	want, special := n[root]
	if !special {
		want = 2 // a resource
	}
	if want == 0 {
		return ""
	}
	return strings.Join(parts[:min(want, len(parts))], ".")
}

// TestTerraform: HCL's own parser takes every file, what they refer to is
// declared in them, and what is declared is used.
func TestTerraform(t *testing.T) {
	t.Parallel()
	for _, cloud := range []string{"aws", "azure", "google"} {
		m := parseModule(t, filepath.Join(harness.Root(), "deploy", "terraform", cloud))
		for name, at := range m.used {
			if !m.declared[name] {
				t.Errorf("%s: %s is declared nowhere", at, name)
			}
		}
		for name := range m.declared {
			_, used := m.used[name]
			if (strings.HasPrefix(name, "var.") || strings.HasPrefix(name, "local.")) && !used {
				t.Errorf("%s: %s is used nowhere", cloud, name)
			}
		}
		for _, body := range m.bodies {
			for _, block := range body.Blocks {
				if (block.Type == "variable" || block.Type == "output") && block.Body.Attributes["description"] == nil {
					t.Errorf("%s: no description", block.DefRange())
				}
			}
		}
	}
}

// TestTerraformIsLeast: an identity of a source gets no right to change
// anything; what a destination needs more is given on a condition of its own,
// and no right is given by a wildcard.
func TestTerraformIsLeast(t *testing.T) {
	t.Parallel()
	m := parseModule(t, filepath.Join(harness.Root(), "deploy", "terraform", "aws"))
	var always, conditional []string
	for _, block := range m.bodies[0].Blocks {
		if block.Type != "data" || block.Labels[0] != "aws_iam_policy_document" || block.Labels[1] != "twinport" {
			continue
		}
		for _, statement := range block.Body.Blocks {
			switch statement.Type {
			case "statement":
				always = append(always, actions(t, statement.Body)...)
			case "dynamic":
				conditional = append(conditional, actions(t, statement.Body.Blocks[0].Body)...)
			}
		}
	}
	if len(always) < 5 || len(conditional) < 5 {
		t.Fatalf("actions are not found: %v, %v", always, conditional)
	}
	for _, action := range always {
		if verb := strings.TrimPrefix(action, "ecr:"); !slices.ContainsFunc([]string{"Get", "BatchGet", "BatchCheck", "Describe", "List"}, func(p string) bool { return strings.HasPrefix(verb, p) }) {
			t.Errorf("a source's identity may %s", action)
		}
	}
	for _, action := range append(always, conditional...) {
		if strings.Contains(action, "*") {
			t.Errorf("%s is a wildcard", action)
		}
	}
	for _, needed := range []string{
		"ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:CreateRepository",
		"ecr:PutLifecyclePolicy", "ecr:SetRepositoryPolicy", "ecr:TagResource", "ecr:BatchDeleteImage", "sqs:ReceiveMessage", "sqs:DeleteMessage",
	} {
		if !slices.Contains(conditional, needed) {
			t.Errorf("nobody may %s", needed)
		}
	}
}

// actions are the literal ones of a statement.
func actions(t *testing.T, body *hclsyntax.Body) (list []string) {
	t.Helper()
	attribute := body.Attributes["actions"]
	if attribute == nil {
		return nil
	}
	value, faults := attribute.Expr.Value(nil)
	if faults.HasErrors() {
		t.Fatal(faults)
	}
	for it := value.ElementIterator(); it.Next(); {
		_, element := it.Element()
		if element.Type() != cty.String {
			t.Fatal(fmt.Errorf("%s: an action that is no string", attribute.Range()))
		}
		list = append(list, element.AsString())
	}
	return list
}
