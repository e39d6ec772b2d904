/* Streams as event.c sees them; everything under sim.queue_lock. */
#ifndef GPUSIM_STREAM_H
#define GPUSIM_STREAM_H

#include "sim.h"

struct CUstream_st {
    CUcontext context;
    unsigned flags;
    int priority;
    bool alive;
    bool started, in_work;
    pthread_t thread;
    pthread_cond_t work;
    struct sim_work *head, *tail;
    uint64_t submitted, done;
    struct CUgraph_st *capture; /* where work goes instead of the queue, or NULL */
    struct CUstream_st *next;
};

/* graph.c, under sim.queue_lock: takes work that a capturing stream was given. */
CUresult graph_take(struct CUgraph_st *graph, struct sim_work *work);
/* A capturing stream was asked for what cannot be captured: the error to return. */
CUresult graph_spoil(struct CUgraph_st *graph);

/* `work` is to start only when `stream` has done `count` pieces of work. False: out of memory. */
bool stream_add_wait(struct sim_work *work, struct CUstream_st *stream, uint64_t count);
/* Until `count` pieces of work are done, or the sticky error. */
CUresult stream_wait_done(struct CUstream_st *s, uint64_t count);

#endif
