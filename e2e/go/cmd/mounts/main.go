// Command mounts uses a daemon's mount manager through containerd's own Go client. What it learns it prints as JSON.
//
//	mounts [flags] activate NAME MOUNTS  a JSON list of mounts; prints what became of them
//	mounts [flags] info NAME             prints one activation
//	mounts [flags] list [FILTER...]      prints a list of names
//	mounts [flags] deactivate NAME
//
// Exit status: 0 when the call worked, 1 when it failed, 2 for a wrong command line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"

	"kevel.test/e2e/dial"
)

// labels are the values of a flag that may come several times.
type labels map[string]string

func (l labels) String() string { return fmt.Sprint(map[string]string(l)) }

func (l labels) Set(text string) error {
	key, value, _ := strings.Cut(text, "=")
	l[key] = value
	return nil
}

func main() {
	set := flag.NewFlagSet("mounts", flag.ContinueOnError)
	target := dial.Flags(set)
	lease := set.String("lease", "", "`lease` that keeps what is activated")
	temporary := set.Bool("temporary", false, "mount everything, to look inside")
	given := labels{}
	set.Var(given, "label", "a label of the activation, as `KEY=VALUE`; may come several times")
	if err := set.Parse(os.Args[1:]); err != nil {
		os.Exit(2)
	}
	arguments := set.Args()
	wanted := map[string]int{"activate": 3, "info": 2, "deactivate": 2}
	if len(arguments) == 0 || (arguments[0] != "list" && len(arguments) != wanted[arguments[0]]) {
		fmt.Fprintln(os.Stderr, "mounts: activate NAME MOUNTS, info NAME, list [FILTER...] or deactivate NAME")
		os.Exit(2)
	}
	options := []mount.ActivateOpt{mount.WithLabels(given)}
	if *temporary {
		options = append(options, mount.WithTemporary)
	}
	said, err := call(target, *lease, arguments, options)
	if err == nil && said != nil {
		err = json.NewEncoder(os.Stdout).Encode(said)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mounts:", err)
		os.Exit(1)
	}
}

// call makes the call that the arguments ask for, and returns what there is to print.
func call(target *dial.Target, lease string, arguments []string, options []mount.ActivateOpt) (any, error) {
	ctx, cancel, client, err := target.Open(context.Background())
	if err != nil {
		return nil, err
	}
	defer cancel()
	defer func() { _ = client.Close() }()
	if lease != "" {
		ctx = leases.WithLease(ctx, lease)
	}
	manager := client.MountManager()
	switch arguments[0] {
	case "activate":
		var mounts []mount.Mount
		if err := json.Unmarshal([]byte(arguments[2]), &mounts); err != nil {
			return nil, fmt.Errorf("reading mounts: %w", err)
		}
		return manager.Activate(ctx, arguments[1], mounts, options...)
	case "info":
		return manager.Info(ctx, arguments[1])
	case "list":
		found, err := manager.List(ctx, arguments[1:]...)
		names := []string{}
		for _, one := range found {
			names = append(names, one.Name)
		}
		return names, err
	default:
		return nil, manager.Deactivate(ctx, arguments[1])
	}
}
