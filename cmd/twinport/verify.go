package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newVerify(o *options) *cobra.Command {
	var request api.VerifyRequest
	cmd := &cobra.Command{
		Use:   "verify [ROUTE...]",
		Short: "Read the destinations back and tell what is missing or corrupt",
		Long: `Read the destinations back: every manifest's bytes, and the presence and size of
every blob; with --deep, every byte of every blob is hashed. What is checked is
what is on record; where nothing is, what the source wants there.

Exit code 1 when something is missing or corrupt, or could not be asked.`,
		Example: `  twinport verify
  twinport verify prod --deep --output json`,
		ValidArgsFunction: completeRoutes(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			request.Routes = args
			d, err := openWriting(cmd.Context(), cfg, asking)
			return with(d, err, func(op api.Operator) error {
				show := newProgress(os.Stderr, true)
				result, err := op.Verify(cmd.Context(), request, show.tell)
				show.end()
				if err != nil {
					return err
				}
				if err := printVerify(cmd.OutOrStdout(), o, result); err != nil {
					return err
				}
				if !result.Sound() {
					return exitError{code: exitFailed}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&request.Deep, "deep", false, "hash every byte of every blob")
	return cmd
}

func printVerify(w io.Writer, o *options, v api.Verify) error {
	if o.output == "json" {
		return printJSON(w, v)
	}
	if len(v.Missing)+len(v.Corrupt) > 0 {
		g := newGrid(w, "WHAT", "REGISTRY", "REPOSITORY", "TAG", "DIGEST")
		for _, m := range v.Missing {
			g.row("missing", m.Registry, m.Repository, m.Tag, m.Digest)
		}
		for _, c := range v.Corrupt {
			g.row("corrupt", c.Registry, c.Repository, c.Tag, c.Digest)
		}
		if err := g.flush(); err != nil {
			return err
		}
	}
	for _, e := range v.Errors {
		fmt.Fprintf(w, "not asked: %s\n", plain(e))
	}
	_, err := fmt.Fprintf(w, "%d checked, %d missing, %d corrupt\n", v.Checked, len(v.Missing), len(v.Corrupt))
	return err
}
