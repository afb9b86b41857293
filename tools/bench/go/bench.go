// What a workload is given: its size, its clock and its checks; and how its size is chosen. The
// policy is testing.B's, and weft-bench's (../bench.cpp) to the letter, so that both programs do
// equally much work before and during a measurement.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

type workload struct {
	name  string
	fixed int // operations of one measurement; 0: as many as fill --benchtime
	run   func(b *bench)
}

type bench struct {
	n       int // operations to do
	seed    uint64
	began   time.Time
	elapsed time.Duration
	metrics []metric
	failure string
}

type metric struct {
	value float64
	unit  string
}

func (b *bench) start() { b.began = time.Now() }
func (b *bench) stop()  { b.elapsed = time.Since(b.began) }

func (b *bench) report(value float64, unit string) {
	b.metrics = append(b.metrics, metric{value, unit})
}

// check records the first wrong result; the measurement is then worth nothing.
func (b *bench) check(ok bool, format string, args ...any) {
	if !ok && b.failure == "" {
		b.failure = fmt.Sprintf(format, args...)
	}
}

const maxOps = 1_000_000_000

// measure runs w until one run fills benchtime, each run larger than the one before, which was its
// warm-up. A workload of fixed size runs once, cold, in a process that has run nothing else.
func measure(w *workload, benchtime time.Duration, seed uint64) *bench {
	n := 1
	if w.fixed > 0 {
		n = w.fixed
	}
	for {
		b := &bench{n: n, seed: seed}
		w.run(b)
		if b.failure != "" || w.fixed > 0 || b.elapsed >= benchtime || n >= maxOps {
			return b
		}
		last := n
		n = int(float64(benchtime) / float64(max(b.elapsed, 1)) * float64(n) * 1.2)
		n = min(max(min(n, 100*last), last+1), maxOps)
	}
}

// random is splitmix64: the same numbers from the same seed in both programs.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// residentBytes is VmRSS + VmPTE: what the pages cost and what their page tables cost.
func residentBytes() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	total, found := 0, 0
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"VmRSS:", "VmPTE:"} {
			rest, ok := strings.CutPrefix(line, key)
			if !ok {
				continue
			}
			var kib int
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("/proc/self/status: %q: %w", line, err)
			}
			total += kib * 1024
			found++
		}
	}
	if found != 2 {
		return 0, errors.New("/proc/self/status has no VmRSS or VmPTE")
	}
	return total, nil
}

// peakBytes is VmHWM: the most that was ever resident.
func peakBytes() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib * 1024, nil
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}
