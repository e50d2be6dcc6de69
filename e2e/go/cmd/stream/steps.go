package main

import (
	"context"
	"encoding/json"
	"io"

	"k8s.io/client-go/tools/remotecommand"
)

// step is one thing that a user does.
type step struct {
	// Wait is text that has to be seen first.
	Wait string `json:"wait"`
	// Input is typed.
	Input string `json:"input"`
	// Repeat types the input so many times.
	Repeat int `json:"repeat"`
	// Width and Height are a new size of the terminal.
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
	// Close ends the input.
	Close bool `json:"close"`
}

// steps does them, one after the other.
type steps struct {
	list   []step
	output *seen
	input  io.Reader
	writer *io.PipeWriter
	sizes  chan *remotecommand.TerminalSize
}

func newSteps(text string, output *seen) (*steps, error) {
	s := &steps{output: output, sizes: make(chan *remotecommand.TerminalSize, 1)}
	s.input, s.writer = io.Pipe()
	if text == "" {
		return s, nil
	}
	return s, json.Unmarshal([]byte(text), &s.list)
}

// Next is the terminal's next size.
func (s *steps) Next() *remotecommand.TerminalSize {
	return <-s.sizes
}

func (s *steps) run(ctx context.Context) {
	for _, step := range s.list {
		if step.Wait != "" && !s.output.wait(ctx, step.Wait) {
			return
		}
		if step.Width > 0 {
			select {
			case s.sizes <- &remotecommand.TerminalSize{Width: step.Width, Height: step.Height}:
			case <-ctx.Done():
				return
			}
		}
		for range max(step.Repeat, 1) {
			if step.Input == "" {
				break
			}
			if _, err := io.WriteString(s.writer, step.Input); err != nil {
				return
			}
		}
		if step.Close {
			s.writer.Close()
		}
	}
}
