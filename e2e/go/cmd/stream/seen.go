package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"time"
)

// kept is how much of a stream is printed; the rest is only counted.
const kept = 64 << 10

// seen is a writer that remembers what came.
type seen struct {
	// Text is the beginning.
	Text string `json:"text"`
	// Bytes and Lines are all that came.
	Bytes int64 `json:"bytes"`
	Lines int64 `json:"lines"`
	// Sum is the SHA-256 of all that came.
	Sum string `json:"sum"`

	mutex sync.Mutex
	text  bytes.Buffer
	sum   hash.Hash
	more  chan struct{}
	slow  int
}

func newSeen(slow int) *seen {
	return &seen{sum: sha256.New(), more: make(chan struct{}), slow: slow}
}

// Write takes everything, slowly at first if it is to.
func (s *seen) Write(data []byte) (int, error) {
	s.mutex.Lock()
	s.Bytes += int64(len(data))
	s.Lines += int64(bytes.Count(data, []byte("\n")))
	s.sum.Write(data)
	s.text.Write(data[:min(len(data), kept-min(kept, s.text.Len()))])
	close(s.more)
	s.more = make(chan struct{})
	slow := s.slow > 0
	s.slow--
	s.mutex.Unlock()
	if slow {
		time.Sleep(time.Millisecond)
	}
	return len(data), nil
}

// wait returns once the beginning has the text in it; false when the context ended first.
func (s *seen) wait(ctx context.Context, text string) bool {
	for {
		s.mutex.Lock()
		found, more := bytes.Contains(s.text.Bytes(), []byte(text)), s.more
		s.mutex.Unlock()
		if found {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *seen) finish() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.Text = s.text.String()
	s.Sum = hex.EncodeToString(s.sum.Sum(nil))
}
