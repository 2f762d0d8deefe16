package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// options are the flags every command takes.
type options struct {
	config string
	output string
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "twinport",
		Short: "Keep a verified twin of every container image in another registry",
		Long: `Twinport keeps a verified twin of every container image in another region,
cloud or registry, so that losing one registry loses nothing.

Registries tell the daemon (twinport serve) of pushes by webhook. It copies
images by digest, proves each copy by reading the destination back, and tells
at any moment how far each destination is behind. Everything is set in one YAML
file, twinport.yaml.

Exit codes of all commands:
  0    done, and in sync
  1    something failed, was refused, is missing or corrupt; the data directory
       is locked or cannot be written; or (status) an RPO is missed or unknown
  2    usage or config
  130  interrupted`,
		Example: `  twinport validate
  twinport check
  twinport plan
  twinport sync
  twinport serve --config /etc/twinport/twinport.yaml
  twinport status --behind`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringVar(&o.config, "config", "twinport.yaml", "the config `file`")
	root.PersistentFlags().StringVar(&o.output, "output", "table", "`format` of what is printed: table or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o.output != "table" && o.output != "json" {
			return usage(fmt.Errorf("--output %q: choose table or json", o.output))
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; `%s --help` lists the flags", err, cmd.CommandPath()))
	})
	_ = root.RegisterFlagCompletionFunc("output", fixed("table", "json")) // the flag exists
	root.AddCommand(
		newServe(o), newCheck(o), newSync(o), newPlan(o), newStatus(o), newVerify(o), newJobs(o), newFindings(o),
		newHistory(o), newPause(o, true), newPause(o, false), newResolve(o), newValidate(o), newJournal(o), newVersion(o),
	)
	return root
}

// noArgs refuses arguments, with exit code 2; a word that is no command is told so.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		message := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
		if suggestions := cmd.SuggestionsFor(args[0]); len(suggestions) > 0 {
			message += fmt.Sprintf("; did you mean %q?", suggestions[0])
		}
		return usage(errors.New(message))
	}
	return usage(fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0]))
}

// exactly asks for n arguments, named for the error.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Errorf("%s takes %s; `%s --help` shows how", cmd.CommandPath(), what, cmd.CommandPath()))
		}
		return nil
	}
}

// group is a command that only has subcommands.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

func fixed(words ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
