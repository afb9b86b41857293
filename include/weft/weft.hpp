/// weft/weft.hpp: everything.
#pragma once

#include <weft/await.hpp>
#include <weft/barrier.hpp>
#include <weft/blocking.hpp>
#include <weft/chan.hpp>
#include <weft/cond.hpp>
#include <weft/context.hpp>
#include <weft/defer.hpp>
#include <weft/dump.hpp>
#include <weft/error.hpp>
#include <weft/fd.hpp>
#include <weft/go.hpp>
#include <weft/hooks.hpp>
#include <weft/latch.hpp>
#include <weft/mutex.hpp>
#include <weft/once.hpp>
#include <weft/panic.hpp>
#include <weft/runtime.hpp>
#include <weft/rw_mutex.hpp>
#include <weft/select.hpp>
#include <weft/semaphore.hpp>
#include <weft/test.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>
