// weft's benchmarks as a Go programmer would write them: the other side of weft-bench (../), with
// the same workloads, flags and output, so that ../compare.sh drives both. Each measurement runs in
// a process of its own: it starts cold, and one that crashes or hangs costs one row.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	program      = "go-bench"
	childTimeout = 120 * time.Second
	quitDelay    = 5 * time.Second
)

type options struct {
	procs     []int
	run       *regexp.Regexp
	count     int
	benchtime time.Duration
	seed      uint64
	jsonPath  string
	list      bool
	version   bool
	inProcess bool
	child     bool // print result lines only
}

type result struct {
	Name    string             `json:"name"`
	Procs   int                `json:"procs"`
	N       int                `json:"n"`
	Metrics map[string]float64 `json:"metrics"`
}

type report struct {
	Program    string   `json:"program"`
	GOOS       string   `json:"goos"`
	GOARCH     string   `json:"goarch"`
	CPU        string   `json:"cpu"`
	Seed       uint64   `json:"seed"`
	Benchmarks []result `json:"benchmarks"`
}

func main() {
	opt, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(2)
	}
	os.Exit(benchmark(opt))
}

func parse(args []string) (*options, error) {
	opt := &options{}
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	procs := flags.String("procs", strconv.Itoa(runtime.GOMAXPROCS(0)), "processors, a comma-separated `list`")
	run := flags.String("run", "", "measure the workloads that match this `regexp`")
	flags.IntVar(&opt.count, "count", 1, "measurements of each workload")
	flags.DurationVar(&opt.benchtime, "benchtime", 500*time.Millisecond, "least time of one measurement")
	flags.Uint64Var(&opt.seed, "seed", 1, "seed of the workloads' random numbers")
	flags.StringVar(&opt.jsonPath, "json", "", "write the results to this `file` too")
	flags.BoolVar(&opt.list, "list", false, "print the workloads' names and leave")
	flags.BoolVar(&opt.version, "version", false, "print the version of Go and leave")
	flags.BoolVar(&opt.inProcess, "in-process", false, "measure in this process, for profilers and debuggers")
	flags.BoolVar(&opt.child, "child", false, "as -in-process, result lines only")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			flags.Usage()
		}
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for field := range strings.SplitSeq(*procs, ",") {
		p, err := strconv.Atoi(field)
		if err != nil || p < 1 || p > 1024 {
			return nil, fmt.Errorf("--procs: %q is not a number from 1 to 1024", field)
		}
		opt.procs = append(opt.procs, p)
	}
	var err error
	if opt.run, err = regexp.Compile(*run); err != nil {
		return nil, fmt.Errorf("--run: %v", err)
	}
	if opt.count < 1 {
		return nil, fmt.Errorf("--count: %d is not positive", opt.count)
	}
	if opt.benchtime <= 0 {
		return nil, fmt.Errorf("--benchtime: %v is not positive", opt.benchtime)
	}
	return opt, nil
}

// benchmark measures what opt asks for and returns the exit status.
func benchmark(opt *options) int {
	var chosen []*workload
	for i := range workloads {
		if opt.run.MatchString(workloads[i].name) {
			chosen = append(chosen, &workloads[i])
		}
	}
	if opt.list {
		for _, w := range chosen {
			fmt.Println(w.name)
		}
		return 0
	}
	if opt.version {
		fmt.Println(runtime.Version())
		return 0
	}
	if len(chosen) == 0 {
		fmt.Fprintf(os.Stderr, "%s: --run: no workload matches %q\n", program, opt.run)
		return 2
	}
	rep := report{Program: runtime.Version(), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, CPU: cpuName(),
		Seed: opt.seed, Benchmarks: []result{}}
	var jsonFile *os.File
	if opt.jsonPath != "" {
		var err error
		if jsonFile, err = os.Create(opt.jsonPath); err != nil {
			fmt.Fprintf(os.Stderr, "%s: --json: %v\n", program, err)
			return 2
		}
	}
	if !opt.child {
		fmt.Printf("goos: %s\ngoarch: %s\npkg: weft/bench\ncpu: %s\n", rep.GOOS, rep.GOARCH, rep.CPU)
	}
	show := progress{total: len(chosen) * len(opt.procs) * opt.count, on: !opt.child && isTerminal(os.Stderr)}
	status := 0
	for _, w := range chosen {
		for _, procs := range opt.procs {
			for range opt.count {
				show.next(w.name, procs)
				var line string
				var err error
				if opt.child || opt.inProcess {
					line, err = measureHere(w, procs, opt)
				} else {
					line, err = measureInChild(w, procs, opt)
				}
				show.clear()
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s: Benchmark%s: %v\n", program, label(w.name, procs), err)
					status = 1
					continue
				}
				fmt.Println(line)
				if r, err := parseLine(line); err == nil {
					rep.Benchmarks = append(rep.Benchmarks, r)
				}
			}
		}
	}
	if jsonFile != nil {
		enc := json.NewEncoder(jsonFile)
		enc.SetIndent("", "  ")
		if err := errors.Join(enc.Encode(rep), jsonFile.Close()); err != nil {
			fmt.Fprintf(os.Stderr, "%s: --json: %v\n", program, err)
			return 1
		}
	}
	return status
}

// label is the workload's name as testing.B prints it: with the procs unless that is 1.
func label(name string, procs int) string {
	if procs == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, procs)
}

func measureHere(w *workload, procs int, opt *options) (string, error) {
	runtime.GOMAXPROCS(procs)
	b := measure(w, opt.benchtime, opt.seed)
	if b.failure != "" {
		return "", errors.New("wrong result: " + b.failure)
	}
	line := fmt.Sprintf("%-24s\t%10d\t%s ns/op", "Benchmark"+label(w.name, procs), b.n,
		figure(float64(b.elapsed.Nanoseconds())/float64(b.n)))
	for _, m := range b.metrics {
		line += fmt.Sprintf("\t%s %s", figure(m.value), m.unit)
	}
	return line, nil
}

// figure has four significant digits and no exponent, as testing.B prints them.
func figure(value float64) string {
	decimals, width := 0, 10
	for limit := 999.95; decimals < 6 && value < limit; limit /= 10 {
		decimals++
		width = 11 + decimals
	}
	return fmt.Sprintf("%*.*f", width, decimals, value)
}

func measureInChild(w *workload, procs int, opt *options) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), childTimeout+10*opt.benchtime)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "--child", "--run", "^"+w.name+"$",
		"--procs", strconv.Itoa(procs), "--benchtime", opt.benchtime.String(),
		"--seed", strconv.FormatUint(opt.seed, 10))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // dumps all goroutines
	cmd.WaitDelay = quitDelay
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("not finished after %v", childTimeout+10*opt.benchtime)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func parseLine(line string) (result, error) {
	f := strings.Fields(line)
	if len(f) < 4 || len(f)%2 != 0 {
		return result{}, fmt.Errorf("not a benchmark line: %q", line)
	}
	r := result{Name: f[0], Procs: 1, Metrics: map[string]float64{}}
	if name, procs, ok := strings.Cut(f[0], "-"); ok {
		p, err := strconv.Atoi(procs)
		if err != nil {
			return result{}, err
		}
		r.Name, r.Procs = name, p
	}
	var err error
	if r.N, err = strconv.Atoi(f[1]); err != nil {
		return result{}, err
	}
	for i := 2; i < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return result{}, err
		}
		r.Metrics[f[i+1]] = v
	}
	return r, nil
}

func cpuName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// progress is one line on a terminal that says what is being measured.
type progress struct {
	done, total int
	on          bool
}

func (p *progress) next(name string, procs int) {
	p.done++
	if p.on {
		fmt.Fprintf(os.Stderr, "\r\x1b[K[%d/%d] %s", p.done, p.total, label(name, procs))
	}
}

func (p *progress) clear() {
	if p.on {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
