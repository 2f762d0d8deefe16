package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newResolve(o *options) *cobra.Command {
	var prefer string
	cmd := &cobra.Command{
		Use:   "resolve REGISTRY/REPOSITORY:TAG --prefer REGISTRY",
		Short: "Settle a tag that two registries moved at once",
		Long: `Settle a conflict: two registries that feed each other both moved a tag, and
neither is an older state of the other. The image at the preferred registry wins
and is copied over the other, whose image stays there by its digest.`,
		Example: `  twinport findings list --kind conflict
  twinport resolve eu/team/app:prod --prefer eu`,
		Args: exactly(1, "one REGISTRY/REPOSITORY:TAG, at either end"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if prefer == "" {
				return usage(errors.New("--prefer names the registry whose image wins"))
			}
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openWriting(cmd.Context(), cfg, steering)
			return with(d, err, func(op api.Operator) error {
				result, err := op.Resolve(cmd.Context(), api.ResolveRequest{Reference: args[0], Prefer: prefer}, actorName())
				if err != nil {
					return err
				}
				if o.output == "json" {
					return printJSON(cmd.OutOrStdout(), result)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s of %s wins; the daemon or the next sync copies it\n", result.Reference, result.Digest, result.Prefer)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&prefer, "prefer", "", "the `registry` whose image wins")
	return cmd
}
