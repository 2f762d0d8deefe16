package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/config"
)

func newValidate(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the config and tell every fault at once",
		Long: `Check the config and tell every fault at once, each with its line, what is wrong
and what to do. Nothing is asked of any registry. An environment variable that
is not set is a warning here and a fault for what runs.`,
		Example: `  twinport validate --config /etc/twinport/twinport.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, warnings, err := config.Check(o.config)
			if err != nil {
				return usage(err)
			}
			if _, err := newState(cfg, nil, nil); err != nil {
				return usage(err)
			}
			told := make([]string, 0, len(warnings))
			for _, w := range warnings {
				told = append(told, w.Error())
			}
			if o.output == "json" {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"valid": true, "registries": len(cfg.Registries), "routes": len(cfg.Routes), "warnings": told,
				})
			}
			for _, w := range told {
				fmt.Fprintln(os.Stderr, "warning: "+w)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d registries, %d routes\n", o.config, len(cfg.Registries), len(cfg.Routes))
			return err
		},
	}
}
