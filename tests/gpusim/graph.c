/* Graphs: kernel launches that a stream captured, to be launched again and again.
 *
 * A capturing stream's work goes into a graph instead of the queue; only launches can be captured
 * here, anything else spoils the capture, as waiting for the stream does. Graphs that are built
 * node by node are not simulated. Everything under sim.queue_lock.
 */
#include <stdlib.h>
#include <string.h>

#include "stream.h"

/* A graph, or one made ready to launch: the same list. */
struct CUgraph_st {
    bool alive, ready, spoilt;
    struct sim_work *first, *last;
    struct CUgraph_st *next;
};

static struct CUgraph_st *graphs; /* all that there ever were */

CUresult graph_take(struct CUgraph_st *graph, struct sim_work *work) {
    if (graph->spoilt || work->size == 0) {
        if (work->drop != NULL)
            work->drop(work);
        free(work);
        return graph_spoil(graph);
    }
    if (graph->last != NULL)
        graph->last->next = work;
    else
        graph->first = work;
    graph->last = work;
    return CUDA_SUCCESS;
}

CUresult graph_spoil(struct CUgraph_st *graph) {
    graph->spoilt = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

static struct CUgraph_st *new_graph(bool ready) {
    struct CUgraph_st *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->alive = true;
    g->ready = ready;
    g->next = graphs;
    return graphs = g;
}

static bool graph_ok(const struct CUgraph_st *graph, bool ready) {
    for (const struct CUgraph_st *g = graphs; g != NULL; g = g->next)
        if (g == graph)
            return g->alive && g->ready == ready;
    return false;
}

static void end_graph(struct CUgraph_st *graph) {
    for (struct sim_work *w = graph->first; w != NULL;) {
        struct sim_work *next = w->next;
        free(w);
        w = next;
    }
    graph->first = graph->last = NULL;
    graph->alive = false;
}

static struct sim_work *copy_of(const struct sim_work *work) {
    struct sim_work *copy = malloc(work->size);
    if (copy != NULL) {
        memcpy(copy, work, work->size);
        copy->next = NULL;
        copy->waits = NULL;
        copy->n_waits = 0;
    }
    return copy;
}

/* ---- the interface ---- */

SIM_EXPORT CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
    CUstream s;
    ENTER(NEED_HEALTH);
    CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || mode < 0 || mode > 2)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_VALUE;
    if (s == s->context->null_stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&sim.queue_lock);
    if (s->capture != NULL)
        result = CUDA_ERROR_ILLEGAL_STATE;
    else if ((s->capture = new_graph(false)) == NULL)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

SIM_EXPORT CUresult cuStreamEndCapture(CUstream handle, struct CUgraph_st **graph) {
    CUstream s;
    ENTER(NEED_HEALTH);
    CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || graph == NULL)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_VALUE;
    *graph = NULL;
    pthread_mutex_lock(&sim.queue_lock);
    struct CUgraph_st *captured = s->capture;
    s->capture = NULL;
    if (captured == NULL)
        result = CUDA_ERROR_ILLEGAL_STATE;
    else if (captured->spoilt) {
        end_graph(captured);
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else
        *graph = captured;
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

SIM_EXPORT CUresult cuStreamIsCapturing(CUstream handle, int *status) {
    CUstream s;
    ENTER(NEED_HEALTH);
    const CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS || status == NULL)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.queue_lock);
    *status = s->capture == NULL ? 0 : s->capture->spoilt ? 2 : 1; /* none, active, invalidated */
    pthread_mutex_unlock(&sim.queue_lock);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuGraphInstantiateWithFlags(struct CUgraph_st **ready,
                                                const struct CUgraph_st *graph,
                                                unsigned long long flags) {
    ENTER(NEED_HEALTH);
    if (ready == NULL || flags != 0)
        return ready == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&sim.queue_lock);
    struct CUgraph_st *made = graph_ok(graph, false) ? new_graph(true) : NULL;
    if (made == NULL)
        result = graph_ok(graph, false) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    for (const struct sim_work *w = made != NULL ? graph->first : NULL; w != NULL; w = w->next) {
        struct sim_work *copy = copy_of(w);
        if (copy == NULL) {
            end_graph(made);
            result = CUDA_ERROR_OUT_OF_MEMORY;
            break;
        }
        graph_take(made, copy);
    }
    if (result == CUDA_SUCCESS)
        *ready = made;
    pthread_mutex_unlock(&sim.queue_lock);
    return result;
}

SIM_EXPORT CUresult cuGraphLaunch(struct CUgraph_st *ready, CUstream handle) {
    CUstream s;
    ENTER(NEED_HEALTH);
    CUresult result = sim_stream_resolve(handle, &s);
    if (result != CUDA_SUCCESS)
        return result;
    struct sim_work *copies = NULL, **end = &copies;
    pthread_mutex_lock(&sim.queue_lock);
    if (!graph_ok(ready, true))
        result = CUDA_ERROR_INVALID_VALUE;
    for (const struct sim_work *w = result == CUDA_SUCCESS ? ready->first : NULL;
         result == CUDA_SUCCESS && w != NULL; w = w->next) {
        *end = copy_of(w);
        if (*end == NULL)
            result = CUDA_ERROR_OUT_OF_MEMORY;
        else
            end = &(*end)->next;
    }
    pthread_mutex_unlock(&sim.queue_lock);
    while (copies != NULL) {
        struct sim_work *next = copies->next;
        if (result == CUDA_SUCCESS)
            result = sim_submit(s, copies); /* frees it when it fails */
        else
            free(copies);
        copies = next;
    }
    return result;
}

static CUresult destroy(struct CUgraph_st *graph, bool ready) {
    pthread_mutex_lock(&sim.queue_lock);
    const bool good = graph_ok(graph, ready);
    if (good)
        end_graph(graph);
    pthread_mutex_unlock(&sim.queue_lock);
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_EXPORT CUresult cuGraphDestroy(struct CUgraph_st *graph) {
    ENTER(NEED_HEALTH);
    return destroy(graph, false);
}

SIM_EXPORT CUresult cuGraphExecDestroy(struct CUgraph_st *ready) {
    ENTER(NEED_HEALTH);
    return destroy(ready, true);
}
