package main

import "time"

// Result is what pullrun prints. Absent fields belong to steps that were not reached or not asked for.
type Result struct {
	Reference string `json:"reference"`
	ID        string `json:"id"`
	// Server is the daemon's version as it says itself.
	Server string `json:"server,omitempty"`
	Image  *Image `json:"image,omitempty"`
	// Pid is the init process's pid on the host.
	Pid  uint32  `json:"pid,omitempty"`
	Init *Output `json:"init,omitempty"`
	Exec *Output `json:"exec,omitempty"`
	// Left names what is still there after the clean-up and should not be.
	Left  []string `json:"left,omitempty"`
	Steps []Step   `json:"steps"`
	// Error is the first failure; FailedStep the step it happened in.
	Error      string `json:"error,omitempty"`
	FailedStep string `json:"failed_step,omitempty"`
}

// Image is the pulled image.
type Image struct {
	Name string `json:"name"`
	// Digest and MediaType are the target's: an index's when the reference leads to one.
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	// Size is the sum of the blobs of this platform in bytes.
	Size int64 `json:"size"`
	// Layers are the uncompressed layer digests, lowest first.
	Layers   []string `json:"layers"`
	Unpacked bool     `json:"unpacked"`
}

// Output is what one process left.
type Output struct {
	ExitCode uint32 `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

// Step is one timed step.
type Step struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"ms"`
}

// step times f and records its failure; once a step has failed, later ones are skipped and step returns false.
func (r *Result) step(name string, f func() error) bool {
	if r.Error != "" {
		return false
	}
	return r.always(name, f)
}

// always is step for clean-up: it runs after failures as well.
func (r *Result) always(name string, f func() error) bool {
	start := time.Now()
	err := f()
	r.Steps = append(r.Steps, Step{Name: name, Milliseconds: float64(time.Since(start).Microseconds()) / 1000})
	if err == nil {
		return true
	}
	if r.Error == "" {
		r.Error, r.FailedStep = err.Error(), name
	}
	return false
}
