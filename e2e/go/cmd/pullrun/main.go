// Command pullrun pulls an image, runs it and removes every trace of it through containerd's own Go client, then prints
// one JSON object that says what it saw. It shows that a daemon serves that client unchanged: content, images,
// snapshots, diff, leases, containers, tasks and namespaces are all used as the client uses them.
//
//	pullrun [flags] REFERENCE [COMMAND ARGUMENT...]
//
// Without a command the image's own runs. With -exec, the command has to keep running: it is killed after the exec.
// Exit status: 0 when every step worked (whatever the container's own exit code), 1 when one failed (the JSON object
// then has "error" and "failed_step"), 2 for a wrong command line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"kevel.test/e2e/dial"
)

// options is the command line.
type options struct {
	target      *dial.Target
	reference   string
	arguments   []string
	hostsDir    string
	plainHTTP   bool
	user        string
	snapshotter string
	runtime     string
	runtimeBin  string
	id          string
	stdin       string
	exec        string
	keepImage   bool
	pullOnly    bool
}

func parse() (*options, error) {
	set := flag.NewFlagSet("pullrun", flag.ContinueOnError)
	o := &options{target: dial.Flags(set)}
	set.StringVar(&o.hostsDir, "hosts-dir", "", "`folder` of <host>/hosts.toml files, as in containerd's config_path")
	set.BoolVar(&o.plainHTTP, "plain-http", false, "speak HTTP to hosts that no hosts.toml describes")
	set.StringVar(&o.user, "user", "", "`name:password` for the registry")
	set.StringVar(&o.snapshotter, "snapshotter", "overlayfs", "snapshotter to unpack into and run from")
	set.StringVar(&o.runtime, "runtime", "io.containerd.runc.v2", "runtime `name`")
	set.StringVar(&o.runtimeBin, "runtime-binary", "", "OCI runtime for the shim's BinaryName option")
	set.StringVar(&o.id, "id", fmt.Sprintf("pullrun-%d", os.Getpid()), "container and snapshot id")
	set.StringVar(&o.stdin, "stdin", "", "`text` for the container's standard input, which is closed after it")
	set.StringVar(&o.exec, "exec", "", "`line` for /bin/sh -c in the running container, which is killed afterwards")
	set.BoolVar(&o.keepImage, "keep-image", false, "leave the image behind")
	set.BoolVar(&o.pullOnly, "pull-only", false, "pull and unpack, run nothing")
	if err := set.Parse(os.Args[1:]); err != nil {
		return nil, err
	}
	if set.NArg() == 0 {
		set.Usage()
		return nil, fmt.Errorf("no image reference")
	}
	o.reference, o.arguments = set.Arg(0), set.Args()[1:]
	return o, nil
}

func main() {
	o, err := parse()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pullrun:", err)
		os.Exit(2)
	}
	r := &run{options: o, Result: Result{Reference: o.reference, ID: o.id, Steps: []Step{}}}
	r.all(context.Background())
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r.Result); err != nil {
		fmt.Fprintln(os.Stderr, "pullrun: printing the result:", err)
		os.Exit(1)
	}
	if r.Error != "" {
		os.Exit(1)
	}
}
