// Command events subscribes to a daemon's events through containerd's own Go client and prints each as one JSON line:
//
//	{"timestamp":...,"namespace":...,"topic":...,"type":...,"event":{...}}
//
// The arguments are filters (none: everything). A subscription exists some time after the call that asks for it, so the
// command publishes an event of its own, on topic /kevel/ready, until it comes back, and then prints {"ready":true}:
// whatever happens after that line is seen. Those events are not printed.
//
//	events [-count N] [-timeout D] [FILTER...]
//
// Exit status: 0 after -count events, or, without -count, when the time is over or a SIGINT or SIGTERM came; 1 when the
// stream broke or fewer events than -count came; 2 for a wrong command line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"kevel.test/e2e/dial"
)

// readyTopic is where the command's own events go.
const readyTopic = "/kevel/ready"

// readyInterval is how often it publishes one until it has come back.
const readyInterval = 50 * time.Millisecond

// line is one printed event.
type line struct {
	Timestamp time.Time `json:"timestamp"`
	Namespace string    `json:"namespace"`
	Topic     string    `json:"topic"`
	// Type is the event's type URL.
	Type string `json:"type"`
	// Event is the decoded event, null for a type that the client does not know.
	Event any `json:"event"`
}

func main() {
	set := flag.NewFlagSet("events", flag.ContinueOnError)
	target := dial.Flags(set)
	count := set.Int("count", 0, "leave after this `number` of events (0: never)")
	if err := set.Parse(os.Args[1:]); err != nil {
		os.Exit(2)
	}
	if err := follow(target, *count, set.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "events:", err)
		os.Exit(1)
	}
}

// follow prints events until count is reached, the time is over or a signal comes.
func follow(target *dial.Target, count int, filters []string) error {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel, client, err := target.Open(interrupted)
	if err != nil {
		return err
	}
	defer cancel()
	defer func() { _ = client.Close() }()

	if len(filters) > 0 {
		filters = append(filters, fmt.Sprintf("topic==%q", readyTopic))
	}
	stream, failures := client.Subscribe(ctx, filters...)
	out := json.NewEncoder(os.Stdout)
	marker := fmt.Sprintf("events-%d", os.Getpid())
	ready := false
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for seen := 0; count == 0 || seen < count; {
		select {
		case <-tick.C:
			if err := announce(ctx, client, marker); err != nil && ctx.Err() == nil {
				return err
			}
		case envelope := <-stream:
			if envelope.Topic == readyTopic {
				if !ready && isMarker(envelope, marker) {
					ready = true
					tick.Stop()
					if err := out.Encode(map[string]bool{"ready": true}); err != nil {
						return err
					}
				}
				continue
			}
			seen++
			if err := out.Encode(render(envelope)); err != nil {
				return err
			}
		case err := <-failures:
			return ended(ctx, err, count)
		case <-ctx.Done():
			return ended(ctx, nil, count)
		}
	}
	return nil
}

func announce(ctx context.Context, client *containerd.Client, marker string) error {
	err := client.EventService().Publish(ctx, readyTopic, &eventtypes.NamespaceUpdate{Name: marker})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", readyTopic, err)
	}
	return nil
}

func isMarker(envelope *events.Envelope, marker string) bool {
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return false
	}
	update, ok := event.(*eventtypes.NamespaceUpdate)
	return ok && update.Name == marker
}

func render(envelope *events.Envelope) line {
	l := line{Timestamp: envelope.Timestamp, Namespace: envelope.Namespace, Topic: envelope.Topic}
	if envelope.Event != nil {
		l.Type = envelope.Event.GetTypeUrl()
		if event, err := typeurl.UnmarshalAny(envelope.Event); err == nil {
			l.Event = event
		}
	}
	return l
}

// ended says whether the end of the stream is the expected one.
func ended(ctx context.Context, failure error, count int) error {
	switch {
	case ctx.Err() == nil && failure != nil:
		return fmt.Errorf("reading the stream: %w", failure)
	case ctx.Err() == nil:
		return errors.New("the daemon closed the stream")
	case count > 0:
		return fmt.Errorf("fewer than %d events came: %w", count, context.Cause(ctx))
	default:
		return nil
	}
}
