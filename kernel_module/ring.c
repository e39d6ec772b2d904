// SPDX-License-Identifier: GPL-2.0-only
/*
 * The records: one ring for all readers, each with a place of its own, and the tracepoint.
 *
 * Records are made in atomic context, so readers are woken through irq_work. Their times never
 * decrease with their numbers.
 */
#include <linux/irq_work.h>
#include <linux/spinlock.h>
#include <linux/ktime.h>
#include <linux/wait.h>

#include "mps_guard.h"

#define CREATE_TRACE_POINTS
#include "mg_trace.h"

DECLARE_WAIT_QUEUE_HEAD(mg_readers);
static DEFINE_RAW_SPINLOCK(ring_lock);
static struct mps_guard_event ring[MPS_GUARD_RING];
static u64 written;

static void wake_readers(struct irq_work *work)
{
	wake_up_interruptible(&mg_readers);
}

static DEFINE_IRQ_WORK(wake, wake_readers);

void mg_event(struct mps_guard_event *event)
{
	unsigned long flags;

	BUILD_BUG_ON(sizeof(*event) != MPS_GUARD_EVENT_SIZE);
	event->version = MPS_GUARD_VERSION;
	event->size = sizeof(*event);
	raw_spin_lock_irqsave(&ring_lock, flags);
	event->time_ns = ktime_get_ns();
	event->sequence = ++written;
	ring[written % MPS_GUARD_RING] = *event;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	trace_mps_guard(event);
	irq_work_queue(&wake);
}

void mg_reader_begin(struct mg_reader *reader)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&ring_lock, flags);
	reader->next = written < MPS_GUARD_RING ? 1 : written - MPS_GUARD_RING + 1;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
}

bool mg_reader_next(struct mg_reader *reader, struct mps_guard_event *event)
{
	unsigned long flags;
	bool found;

	raw_spin_lock_irqsave(&ring_lock, flags);
	if (reader->next + MPS_GUARD_RING <= written) {
		u64 oldest = written - MPS_GUARD_RING + 1;

		reader->dropped += oldest - reader->next;
		reader->next = oldest;
	}
	found = reader->next <= written;
	if (found) {
		*event = ring[reader->next++ % MPS_GUARD_RING];
		event->dropped = reader->dropped;
	}
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	return found;
}

bool mg_reader_has(const struct mg_reader *reader)
{
	unsigned long flags;
	bool has;

	raw_spin_lock_irqsave(&ring_lock, flags);
	has = reader->next <= written;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	return has;
}

void mg_ring_exit(void)
{
	irq_work_sync(&wake);
}
