// The workloads of weft-bench, by what they lean on. The same in Go: go/workloads.go.
#pragma once

namespace bench {

class Bench;

// goroutines.cpp
void yield(Bench& b);
void spawn(Bench& b);
void spawn_join(Bench& b);
void skynet(Bench& b);
void fib27(Bench& b);
void start_park(Bench& b);
void parked(Bench& b);
void parked_copyable(Bench& b);
void random_wake(Bench& b);
void random_wake_copyable(Bench& b);
void random_ring(Bench& b);
void random_ring_copyable(Bench& b);
void parked_hibernated(Bench& b);
void sleepers_peak_copyable(Bench& b);
void sleepers_peak_hibernated(Bench& b);
void mutex8(Bench& b);

// sync.cpp
void mutex1(Bench& b);
void rw_read(Bench& b);
void cond_ping_pong(Bench& b);
void fork_join(Bench& b);
void once_fast(Bench& b);
void context_cancel(Bench& b);
void err_group(Bench& b);
void semaphore8(Bench& b);

// channels.cpp
void ping_pong(Bench& b);
void scope_ping_pong(Bench& b);
void stream0(Bench& b);
void stream128(Bench& b);
void mpmc(Bench& b);
void select4(Bench& b);
void ring(Bench& b);
void sieve(Bench& b);

// blocking.cpp
void syscall_region(Bench& b);
void block_50us(Bench& b);
void block_200us(Bench& b);
void block_900us(Bench& b);
void block_beside(Bench& b);
void hogs_loop_1(Bench& b);
void hogs_loop_8(Bench& b);
void hogs_strlen_1(Bench& b);
void hogs_strlen_8(Bench& b);
void hogs_malloc_1(Bench& b);
void hogs_malloc_8(Bench& b);
void hogs_regex_1(Bench& b);
void hogs_regex_8(Bench& b);
void stop_world(Bench& b);
void freeze_world(Bench& b);

// timers.cpp
void ping_pong_timer(Bench& b);
void select_timeout(Bench& b);
void sleepers(Bench& b);
void timer_stop(Bench& b);

}  // namespace bench
