/* Events: a mark in a stream and the time at which it was passed.
 *
 * Recording queues a piece of work that takes the time; waiting, in a stream or in the program, is
 * for that piece of work. A destroyed event's record stays until no queue points to it.
 */
#include <stdlib.h>

#include "stream.h"

struct CUevent_st {
    CUcontext context;
    unsigned flags;
    bool alive;
    CUstream stream; /* of the latest record */
    uint64_t count;
    _Atomic uint64_t when; /* ns; 0 until it has happened */
    struct CUevent_st *next;
};

static struct CUevent_st *events; /* every event, dead ones too; under sim.queue_lock */

struct record {
    struct sim_work work;
    struct CUevent_st *event;
};

static bool event_ok(CUevent handle) {
    bool found = false;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUevent_st *e = events; e != NULL; e = e->next)
        found = found || (e == handle && e->alive);
    pthread_mutex_unlock(&sim.queue_lock);
    return found;
}

/* A dead event's record that no queue points to any more, or a new one. Under the lock. */
static struct CUevent_st *record_free(void) {
    for (struct CUevent_st *e = events; e != NULL; e = e->next)
        if (!e->alive && (e->stream == NULL || e->stream->done >= e->count))
            return e;
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->next = events;
    events = e;
    return e;
}

SIM_EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER(NEED_HEALTH);
    if (event == NULL || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&sim.queue_lock);
    struct CUevent_st *e = record_free();
    if (e != NULL) {
        e->context = sim_current();
        e->flags = flags;
        e->alive = true;
        e->stream = NULL;
        atomic_store(&e->when, 0);
    }
    pthread_mutex_unlock(&sim.queue_lock);
    *event = e;
    return e == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&sim.queue_lock);
    event->alive = false; /* a record in a queue may still point here */
    pthread_mutex_unlock(&sim.queue_lock);
    return CUDA_SUCCESS;
}

static void run_record(struct sim_work *work) {
    atomic_store(&((struct record *)work)->event->when, sim_now_ns());
}

SIM_EXPORT CUresult cuEventRecord(CUevent event, CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || !event_ok(event))
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_HANDLE;
    struct record *record = calloc(1, sizeof *record);
    if (record == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    record->work.run = run_record;
    record->event = event;
    atomic_store(&event->when, 0);
    const CUresult submitted = sim_submit(s, &record->work);
    pthread_mutex_lock(&sim.queue_lock);
    event->stream = s;
    event->count = s->submitted;
    pthread_mutex_unlock(&sim.queue_lock);
    return submitted;
}

SIM_EXPORT CUresult cuEventQuery(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    return event->stream == NULL || atomic_load(&event->when) != 0 ? CUDA_SUCCESS
                                                                   : CUDA_ERROR_NOT_READY;
}

SIM_EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER(NEED_HEALTH);
    if (!event_ok(event))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&sim.queue_lock);
    if (event->stream != NULL)
        result = stream_wait_done(event->stream, event->count);
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

SIM_EXPORT CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) {
    ENTER(NEED_HEALTH);
    if (ms == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!event_ok(from) || !event_ok(to) || from->stream == NULL || to->stream == NULL ||
        ((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    const uint64_t start_ns = atomic_load(&from->when), end_ns = atomic_load(&to->when);
    if (start_ns == 0 || end_ns == 0)
        return CUDA_ERROR_NOT_READY;
    *ms = (float)((double)((int64_t)(end_ns - start_ns)) / 1e6);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    return cuEventElapsedTime_v2(ms, from, to);
}

static void run_nothing(struct sim_work *work) {
    (void)work; /* the waiting is done by the queue */
}

SIM_EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || !event_ok(event) || flags > 1)
        return result != CUDA_SUCCESS ? result
               : flags > 1            ? CUDA_ERROR_INVALID_VALUE
                                      : CUDA_ERROR_INVALID_HANDLE;
    struct sim_work *wait = calloc(1, sizeof *wait);
    if (wait == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    wait->run = run_nothing;
    pthread_mutex_lock(&sim.queue_lock);
    const bool good = event->stream == NULL || stream_add_wait(wait, event->stream, event->count);
    pthread_mutex_unlock(&sim.queue_lock);
    if (!good) {
        free(wait);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return sim_submit(s, wait);
}
