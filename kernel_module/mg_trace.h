/* SPDX-License-Identifier: GPL-2.0-only */
/* The tracepoint mps_guard:mps_guard: the same facts as a record of /dev/mps_guard. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mps_guard

#if !defined(MG_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define MG_TRACE_H

#include <linux/tracepoint.h>

#include "uapi/mps_guard.h"

/* clang-format off */
TRACE_EVENT(mps_guard,
	TP_PROTO(const struct mps_guard_event *event),
	TP_ARGS(event),
	TP_STRUCT__entry(
		__field(u64, incident)
		__field(u64, address)
		__field(u32, kind)
		__field(u32, why)
		__field(u32, gpu)
		__field(u32, reason)
		__field(s32, pid)
		__field(u32, windows)
		__field(u32, holds)
	),
	TP_fast_assign(
		__entry->incident = event->incident;
		__entry->address = event->address;
		__entry->kind = event->kind;
		__entry->why = event->why;
		__entry->gpu = event->gpu;
		__entry->reason = event->reason;
		__entry->pid = event->pid;
		__entry->windows = event->windows;
		__entry->holds = event->holds;
	),
	TP_printk("id=%llu kind=%u why=%u gpu=%u pid=%d va=0x%llx reason=%u windows=%u holds=%u",
		  __entry->incident, __entry->kind, __entry->why, __entry->gpu, __entry->pid,
		  __entry->address, __entry->reason, __entry->windows, __entry->holds)
);
/* clang-format on */

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE mg_trace
#include <trace/define_trace.h>
