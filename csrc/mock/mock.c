/* SPDX-License-Identifier: MIT
 *
 * The reference backend: what the contract asks for, in C99 and without help from astra_net.hpp.
 *
 * The model: every endpoint has one port of `rate_Bps`; a transfer leaves its source's port and
 * arrives `latency_ps` after its last byte has left.  With contention=true a port sends one
 * transfer at a time, first come, first served; otherwise transfers do not meet.  Where create()
 * gets links, the first of them gives rate and latency, and set_link() scales the port of the
 * link's source; a transfer that is on its way keeps the rate it left with. */
#include "mock.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEVER ASTRA_NET_TIME_NEVER

const astra_net_info mock_info = {
    sizeof(astra_net_info),
    ASTRA_NET_VERSION_1_1,
    "mock",
    "1.0",
    ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL | ASTRA_NET_CAP_INTERRUPT |
        ASTRA_NET_CAP_SNAPSHOT | ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION |
        ASTRA_NET_CAP_ORDERED,
    1,
    INT64_MAX,
    1,
    0,
};

enum kind { ARRIVAL, PORT_FREE, SCALE };

/* One event, or one start: ordered by (time, place).  Starts have their id as place. */
typedef struct event {
  int64_t time_ps, place;
  enum kind kind;
  int32_t port;
  double scale;               /* SCALE */
  astra_net_transfer transfer; /* ARRIVAL and starts */
} event;

typedef struct heap {
  event *items;
  size_t count, room;
} heap;

typedef struct port {
  double scale;
  int busy;
  astra_net_transfer *queue; /* first come, first served: [head, tail) */
  size_t head, tail, room;
  int64_t bytes, busy_ps;
} port;

typedef struct sim {
  double rate_Bps;
  int64_t latency_ps;
  int contention, exchanging, submitting, broken, interrupted;
  uint32_t bends;
  int32_t endpoints, links;
  int32_t *link_src;
  port *ports;
  heap events, starts;
  int64_t *ids; /* in flight: open addressing, power of two; INT64_MIN is empty */
  size_t id_count, id_room;
  int has_min_id; /* INT64_MIN itself is a legal id */
  astra_net_completion *ready;
  size_t ready_head, ready_count, ready_room;
  int64_t now_ps, place, submitted;
} sim;

astra_net_status mock_fail(astra_net_error *err, astra_net_status status, int64_t item,
                           const char *format, ...) {
  const size_t head = offsetof(astra_net_error, message);
  if (err != NULL && err->struct_size > head) {
    size_t room = err->struct_size - head;
    va_list arguments;
    if (room > sizeof err->message) room = sizeof err->message;
    err->item = item;
    va_start(arguments, format);
    vsnprintf(err->message, room, format, arguments);
    va_end(arguments);
  }
  return status;
}

/* Make room for one more item; 0 when memory is out. */
static int grow(void **items, size_t *room, size_t need, size_t size) {
  size_t wanted = *room == 0 ? 16 : *room;
  void *bigger;
  while (wanted < need) wanted *= 2;
  if (wanted == *room) return 1;
  bigger = realloc(*items, wanted * size);
  if (bigger == NULL) return 0;
  *items = bigger;
  *room = wanted;
  return 1;
}

static int before(const event *a, const event *b) {
  return a->time_ps != b->time_ps ? a->time_ps < b->time_ps : a->place < b->place;
}

static int push(heap *h, event item) {
  size_t i = h->count;
  if (!grow((void **)&h->items, &h->room, h->count + 1, sizeof item)) return 0;
  h->count++;
  for (; i > 0 && before(&item, &h->items[(i - 1) / 2]); i = (i - 1) / 2)
    h->items[i] = h->items[(i - 1) / 2];
  h->items[i] = item;
  return 1;
}

static event pop(heap *h) {
  event top = h->items[0], last = h->items[--h->count];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < h->count) {
    if (child + 1 < h->count && before(&h->items[child + 1], &h->items[child])) child++;
    if (!before(&h->items[child], &last)) break;
    h->items[i] = h->items[child];
    i = child;
  }
  h->items[i] = last;
  return top;
}

/* ---- the ids in flight ---- */

static size_t slot_of(const sim *s, int64_t id) {
  size_t mask = s->id_room - 1, i = (size_t)(((uint64_t)id * 0x9E3779B97F4A7C15u) >> 20) & mask;
  while (s->ids[i] != INT64_MIN && s->ids[i] != id) i = (i + 1) & mask;
  return i;
}

/* 1 added, 0 already there, -1 no memory */
static int add_id(sim *s, int64_t id) {
  size_t i;
  if (id == INT64_MIN) {
    if (s->has_min_id) return 0;
    s->has_min_id = 1;
    return 1;
  }
  if (2 * (s->id_count + 1) > s->id_room) {
    int64_t *old = s->ids;
    size_t old_room = s->id_room, room = old_room == 0 ? 64 : 2 * old_room;
    int64_t *bigger = malloc(room * sizeof *bigger);
    if (bigger == NULL) return -1;
    for (i = 0; i < room; i++) bigger[i] = INT64_MIN;
    s->ids = bigger;
    s->id_room = room;
    for (i = 0; i < old_room; i++)
      if (old[i] != INT64_MIN) s->ids[slot_of(s, old[i])] = old[i];
    free(old);
  }
  i = slot_of(s, id);
  if (s->ids[i] == id) return 0;
  s->ids[i] = id;
  s->id_count++;
  return 1;
}

static void drop_id(sim *s, int64_t id) {
  size_t mask = s->id_room - 1, i, next;
  if (id == INT64_MIN) {
    s->has_min_id = 0;
    return;
  }
  i = slot_of(s, id);
  s->ids[i] = INT64_MIN;
  s->id_count--;
  /* Close the gap: whoever probed past it must still be found. */
  for (next = (i + 1) & mask; s->ids[next] != INT64_MIN; next = (next + 1) & mask) {
    int64_t moved = s->ids[next];
    s->ids[next] = INT64_MIN;
    s->ids[slot_of(s, moved)] = moved;
  }
}

static size_t in_flight(const sim *s) { return s->id_count + (size_t)s->has_min_id; }

/* ---- the model ---- */

static astra_net_status no_memory(sim *s, const char *call, astra_net_error *err) {
  s->broken = 1;
  return mock_fail(err, ASTRA_NET_INTERNAL, -1, "%s: out of memory", call);
}

static astra_net_status too_late(sim *s, const char *call, int64_t id, astra_net_error *err) {
  s->broken = 1;
  return mock_fail(err, ASTRA_NET_MODEL, -1,
                   "%s: transfer %lld ends past the range of int64 picoseconds", call,
                   (long long)id);
}

/* Put a transfer on the wire.  `arrival` and `release` are the places of its two events. */
static astra_net_status transmit(sim *s, const char *call, const astra_net_transfer *t,
                                 int64_t arrival, int64_t release, astra_net_error *err) {
  port *p = &s->ports[t->src];
  int64_t bytes = (s->bends & MOCK_BEND_NARROW) ? (int32_t)t->bytes : t->bytes;
  /* long double: 2^40 bytes times 10^12 is exact in it, and not in a double. */
  long double wire_ps = ceill((long double)bytes * 1e12L / ((long double)s->rate_Bps * p->scale));
  event e = {0, 0, ARRIVAL, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0}};
  int64_t left;
  if ((s->bends & MOCK_BEND_STUCK) && s->submitted == 1) return ASTRA_NET_OK;
  if (wire_ps >= (long double)(NEVER - s->latency_ps - s->now_ps))
    return too_late(s, call, t->id, err);
  left = s->now_ps + (int64_t)wire_ps;
  e.port = t->src;
  e.transfer = *t;
  e.time_ps = left + s->latency_ps;
  if (s->bends & MOCK_BEND_DOUBLE) e.time_ps = (int64_t)(double)e.time_ps;
  e.place = arrival;
  if (!push(&s->events, e)) return no_memory(s, call, err);
  p->bytes += t->bytes;
  p->busy_ps += (int64_t)wire_ps;
  if (s->contention) {
    p->busy = 1;
    e.kind = PORT_FREE;
    e.time_ps = left;
    e.place = release;
    if (!push(&s->events, e)) return no_memory(s, call, err);
  }
  return ASTRA_NET_OK;
}

static astra_net_status start(sim *s, const char *call, const astra_net_transfer *t,
                              int64_t arrival, int64_t release, astra_net_error *err) {
  port *p = &s->ports[t->src];
  if (!p->busy && p->scale > 0) return transmit(s, call, t, arrival, release, err);
  if (p->head == p->tail) p->head = p->tail = 0;
  if (!grow((void **)&p->queue, &p->room, p->tail + 1, sizeof *t)) return no_memory(s, call, err);
  p->queue[p->tail++] = *t;
  return ASTRA_NET_OK;
}

/* Would running this event draw places from the counter? */
static int draws(const sim *s, const event *e) {
  const port *p = &s->ports[e->port];
  return e->kind != ARRIVAL && p->head != p->tail;
}

/* Run one event; an arrival is written to *arrived, and 1 stored in *is_arrival. */
static astra_net_status handle(sim *s, const char *call, const event *e,
                               astra_net_completion *arrived, int *is_arrival,
                               astra_net_error *err) {
  port *p = &s->ports[e->port];
  s->now_ps = e->time_ps;
  *is_arrival = e->kind == ARRIVAL;
  if (*is_arrival) {
    astra_net_completion done = {0, 0, ASTRA_NET_DELIVERED, 0, 0};
    done.id = e->transfer.id;
    done.time_ps = e->time_ps;
    *arrived = done;
    drop_id(s, done.id);
    return ASTRA_NET_OK;
  }
  if (e->kind == SCALE)
    p->scale = e->scale;
  else
    p->busy = 0;
  while (!p->busy && p->scale > 0 && p->head != p->tail) {
    astra_net_transfer next = p->queue[p->head++];
    int64_t arrival = s->place++;
    int64_t release = s->contention ? s->place++ : 0;
    astra_net_status status = transmit(s, call, &next, arrival, release, err);
    if (status != ASTRA_NET_OK) return status;
  }
  return ASTRA_NET_OK;
}

static int keep(sim *s, astra_net_completion done) {
  if (!grow((void **)&s->ready, &s->ready_room, s->ready_count + 1, sizeof done)) return 0;
  s->ready[s->ready_count++] = done;
  return 1;
}

static astra_net_status stuck(sim *s, const char *call, astra_net_error *err) {
  size_t i;
  s->broken = 1;
  for (i = 0; i < (size_t)s->endpoints; i++)
    if (s->ports[i].head != s->ports[i].tail)
      return mock_fail(err, ASTRA_NET_MODEL, -1,
                       "%s: no event is left, but %llu transfers are in flight: transfer %lld "
                       "waits at the port of endpoint %llu, which is down",
                       call, (unsigned long long)in_flight(s),
                       (long long)s->ports[i].queue[s->ports[i].head].id, (unsigned long long)i);
  return mock_fail(err, ASTRA_NET_MODEL, -1, "%s: no event is left, but %llu are in flight", call,
                   (unsigned long long)in_flight(s));
}

/* ---- the calls ---- */

static astra_net_status mock_get_info(astra_net_info *out, astra_net_error *err) {
  uint32_t size;
  if (out == NULL || out->struct_size < sizeof(uint32_t))
    return mock_fail(err, ASTRA_NET_INVALID, -1, "info: out is NULL or has no struct_size");
  size = out->struct_size < sizeof mock_info ? out->struct_size : (uint32_t)sizeof mock_info;
  memcpy(out, &mock_info, size);
  out->struct_size = size;
  return ASTRA_NET_OK;
}

static void mock_destroy(astra_net_sim *opaque) {
  sim *s = (sim *)opaque;
  int32_t i;
  if (s == NULL) return;
  if (s->ports != NULL)
    for (i = 0; i < s->endpoints; i++) free(s->ports[i].queue);
  free(s->ports);
  free(s->link_src);
  free(s->events.items);
  free(s->starts.items);
  free(s->ids);
  free(s->ready);
  free(s);
}

static int read_number(const char *text, double least, double *value) {
  char *end;
  errno = 0;
  *value = strtod(text, &end);
  return errno == 0 && end != text && *end == '\0' && *value >= least && *value <= 1e18;
}

static astra_net_status read_config(sim *s, const astra_net_config *config, astra_net_error *err) {
  size_t i;
  s->rate_Bps = 50e9;
  s->latency_ps = 500000;
  for (i = 0; i < config->link_count; i++) {
    const astra_net_link *l = &config->links[i];
    if (l->src < 0 || l->src >= config->nodes || l->dst < 0 || l->dst >= config->nodes ||
        l->src == l->dst)
      return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i,
                       "create: link %llu: %d -> %d, but there are %d nodes", (unsigned long long)i,
                       (int)l->src, (int)l->dst, (int)config->nodes);
    if (!(l->bytes_per_second > 0) || !isfinite(l->bytes_per_second) || l->latency_ps < 0 ||
        !(l->loss >= 0 && l->loss <= 1))
      return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i,
                       "create: link %llu: bytes_per_second=%g must be positive, latency_ps=%lld "
                       "not negative, loss=%g from 0 to 1",
                       (unsigned long long)i, l->bytes_per_second, (long long)l->latency_ps,
                       l->loss);
    s->link_src[i] = l->src;
  }
  if (config->link_count > 0) {
    s->rate_Bps = config->links[0].bytes_per_second;
    s->latency_ps = config->links[0].latency_ps;
  }
  for (i = 0; i < config->option_count; i++) {
    const char *key = config->options[i].key, *value = config->options[i].value;
    double number;
    if (key == NULL || value == NULL)
      return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i, "create: option %llu is NULL",
                       (unsigned long long)i);
    if (strcmp(key, "rate_Bps") == 0 && read_number(value, 1, &number)) {
      s->rate_Bps = number;
    } else if (strcmp(key, "latency_ps") == 0 && read_number(value, 0, &number)) {
      s->latency_ps = (int64_t)number;
    } else if (strcmp(key, "contention") == 0 &&
               (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)) {
      s->contention = strcmp(value, "true") == 0;
    } else {
      return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i,
                       "create: option '%s' is '%s'; allowed: rate_Bps (1 to 1e18), latency_ps (0 "
                       "to 1e18), contention (true, false)",
                       key, value);
    }
  }
  return ASTRA_NET_OK;
}

static astra_net_status mock_create(const astra_net_config *config, const astra_net_host *host,
                                    astra_net_sim **out, astra_net_error *err) {
  sim *s;
  int32_t i;
  astra_net_status status;
  (void)host;
  if (out == NULL) return mock_fail(err, ASTRA_NET_INVALID, -1, "create: out is NULL");
  *out = NULL;
  if (config == NULL || config->struct_size < sizeof *config)
    return mock_fail(err, ASTRA_NET_INVALID, -1,
                     "create: config is NULL or its struct_size is too small");
  if (config->endpoints < 1 || config->nodes < config->endpoints)
    return mock_fail(err, ASTRA_NET_INVALID, -1,
                     "create: endpoints=%d, nodes=%d, but 1 <= endpoints <= nodes",
                     (int)config->endpoints, (int)config->nodes);
  if ((config->link_count > 0 && config->links == NULL) || config->link_count > INT32_MAX ||
      (config->option_count > 0 && config->options == NULL))
    return mock_fail(err, ASTRA_NET_INVALID, -1, "create: links or options are NULL or too many");
  s = calloc(1, sizeof *s);
  if (s == NULL) return mock_fail(err, ASTRA_NET_INTERNAL, -1, "create: out of memory");
  s->endpoints = config->endpoints;
  s->links = (int32_t)config->link_count;
  s->ports = calloc((size_t)s->endpoints, sizeof *s->ports);
  s->link_src = calloc((size_t)s->links + 1, sizeof *s->link_src);
  if (s->ports == NULL || s->link_src == NULL) {
    mock_destroy((astra_net_sim *)s);
    return mock_fail(err, ASTRA_NET_INTERNAL, -1, "create: out of memory");
  }
  for (i = 0; i < s->endpoints; i++) s->ports[i].scale = 1;
  status = read_config(s, config, err);
  if (status != ASTRA_NET_OK) {
    mock_destroy((astra_net_sim *)s);
    return status;
  }
  *out = (astra_net_sim *)s;
  return ASTRA_NET_OK;
}

/* May this call be made now?  `exchanging` says which half of the contract it belongs to. */
static astra_net_status enter(const sim *s, const char *call, int exchanging,
                              astra_net_error *err) {
  if (s == NULL) return mock_fail(err, ASTRA_NET_INVALID, -1, "%s: sim is NULL", call);
  if (s->broken)
    return mock_fail(err, ASTRA_NET_BAD_STATE, -1,
                     "%s: the simulation has failed; only destroy() is allowed", call);
  if (exchanging ? s->submitting : s->exchanging)
    return mock_fail(err, ASTRA_NET_BAD_STATE, -1,
                     "%s: a simulation uses either exchange() or submit(), advance() and poll()",
                     call);
  return ASTRA_NET_OK;
}

static astra_net_status check_items(const sim *s, const char *call, const astra_net_transfer *items,
                                    size_t n, astra_net_error *err) {
  size_t i;
  for (i = 0; i < n; i++) {
    const astra_net_transfer *t = &items[i];
    const int64_t item = (int64_t)i;
    if (t->src < 0 || t->src >= s->endpoints || t->dst < 0 || t->dst >= s->endpoints)
      return mock_fail(err, ASTRA_NET_INVALID, item,
                       "%s: item %llu: src=%d, dst=%d but the topology has %d endpoints (0..%d)",
                       call, (unsigned long long)i, (int)t->src, (int)t->dst, (int)s->endpoints,
                       (int)s->endpoints - 1);
    if (t->src == t->dst)
      return mock_fail(err, ASTRA_NET_INVALID, item, "%s: item %llu: src and dst are both %d", call,
                       (unsigned long long)i, (int)t->src);
    if (t->bytes <= 0)
      return mock_fail(err, ASTRA_NET_INVALID, item, "%s: item %llu: bytes=%lld must be positive",
                       call, (unsigned long long)i, (long long)t->bytes);
    if (t->start_ps < s->now_ps || t->start_ps == NEVER)
      return mock_fail(err, ASTRA_NET_INVALID, item,
                       "%s: item %llu: start_ps=%lld but now is %lld ps", call,
                       (unsigned long long)i, (long long)t->start_ps, (long long)s->now_ps);
    if (t->traffic_class != 0 || t->flags != 0 || t->reserved != 0)
      return mock_fail(err, ASTRA_NET_INVALID, item,
                       "%s: item %llu: traffic_class, flags and reserved must be 0", call,
                       (unsigned long long)i);
  }
  return ASTRA_NET_OK;
}

static astra_net_status mock_submit(astra_net_sim *opaque, const astra_net_transfer *items,
                                    size_t n, size_t *accepted, astra_net_error *err) {
  sim *s = (sim *)opaque;
  size_t i;
  astra_net_status status = enter(s, "submit", 0, err);
  if (status != ASTRA_NET_OK) return status;
  if (accepted == NULL || (n > 0 && items == NULL))
    return mock_fail(err, ASTRA_NET_INVALID, -1, "submit: items or accepted is NULL");
  status = check_items(s, "submit", items, n, err);
  if (status != ASTRA_NET_OK) return status;
  for (i = 0; i < n; i++) {
    int added = add_id(s, items[i].id);
    size_t j;
    if (added > 0) continue;
    for (j = 0; j < i; j++) drop_id(s, items[j].id);
    if (added < 0) return no_memory(s, "submit", err);
    return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i,
                     "submit: item %llu: id=%lld is already in flight", (unsigned long long)i,
                     (long long)items[i].id);
  }
  for (i = 0; i < n; i++) {
    event e = {0, 0, ARRIVAL, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0}};
    e.time_ps = items[i].start_ps;
    e.place = (s->bends & MOCK_BEND_SUBMISSION) ? s->submitted : items[i].id;
    e.transfer = items[i];
    s->submitted++;
    if (!push(&s->starts, e)) return no_memory(s, "submit", err);
  }
  s->submitting = 1;
  *accepted = n;
  return ASTRA_NET_OK;
}

static astra_net_status mock_advance(astra_net_sim *opaque, int64_t until_ps, int64_t lookahead_ps,
                                     int64_t *now_ps, uint32_t *stop, astra_net_error *err) {
  sim *s = (sim *)opaque;
  int64_t target = until_ps;
  astra_net_status status = enter(s, "advance", 0, err);
  if (status != ASTRA_NET_OK) return status;
  if (now_ps == NULL || stop == NULL)
    return mock_fail(err, ASTRA_NET_INVALID, -1, "advance: now_ps or stop is NULL");
  if (until_ps < s->now_ps)
    return mock_fail(err, ASTRA_NET_INVALID, -1, "advance: until_ps=%lld is before now, %lld ps",
                     (long long)until_ps, (long long)s->now_ps);
  if (lookahead_ps < 0)
    return mock_fail(err, ASTRA_NET_INVALID, -1, "advance: lookahead_ps=%lld is negative",
                     (long long)lookahead_ps);
  if (s->ready_head != s->ready_count)
    return mock_fail(err, ASTRA_NET_BAD_STATE, -1, "advance: %llu completions wait for poll()",
                     (unsigned long long)(s->ready_count - s->ready_head));
  s->submitting = 1;
  s->ready_head = s->ready_count = 0;
  for (;;) {
    const event *next = s->events.count > 0 ? &s->events.items[0] : NULL;
    const event *begin = s->starts.count > 0 ? &s->starts.items[0] : NULL;
    if (__atomic_exchange_n(&s->interrupted, 0, __ATOMIC_SEQ_CST)) {
      *now_ps = s->now_ps;
      *stop = s->ready_count > 0 ? ASTRA_NET_STOP_COMPLETION : 0;
      return mock_fail(err, ASTRA_NET_INTERRUPTED, -1, "advance: interrupted at %lld ps",
                       (long long)s->now_ps);
    }
    if (until_ps == NEVER && in_flight(s) == 0) break;
    /* What has been scheduled goes before what starts in the same instant (R7). */
    if (next != NULL && (begin == NULL || next->time_ps <= begin->time_ps)) {
      astra_net_completion done;
      int is_arrival;
      event e;
      if (next->time_ps > target) break;
      e = pop(&s->events);
      status = handle(s, "advance", &e, &done, &is_arrival, err);
      if (status != ASTRA_NET_OK) return status;
      if (is_arrival) {
        if (!keep(s, done)) return no_memory(s, "advance", err);
        if (s->ready_count == 1) {
          const int64_t beyond = lookahead_ps > 0 ? lookahead_ps - 1 : 0;
          if (done.time_ps <= NEVER - beyond && done.time_ps + beyond < target)
            target = done.time_ps + beyond;
        }
      }
    } else if (begin != NULL) {
      event e;
      int64_t arrival, release;
      if (begin->time_ps > target) break;
      e = pop(&s->starts);
      s->now_ps = e.time_ps;
      arrival = s->place++;
      release = s->place++;
      status = start(s, "advance", &e.transfer, arrival, release, err);
      if (status != ASTRA_NET_OK) return status;
    } else {
      if (in_flight(s) == 0 || s->ready_count > 0 || (s->bends & MOCK_BEND_STUCK)) break;
      return stuck(s, "advance", err);
    }
  }
  if (target != NEVER && (s->ready_count == 0 || target > s->now_ps)) s->now_ps = target;
  *now_ps = s->now_ps;
  *stop = s->ready_count > 0      ? ASTRA_NET_STOP_COMPLETION
          : s->now_ps == until_ps ? ASTRA_NET_STOP_REACHED
                                  : ASTRA_NET_STOP_IDLE;
  return ASTRA_NET_OK;
}

static astra_net_status mock_poll(astra_net_sim *opaque, astra_net_completion *out, size_t capacity,
                                  size_t *count, astra_net_error *err) {
  sim *s = (sim *)opaque;
  size_t n;
  astra_net_status status = enter(s, "poll", 0, err);
  if (status != ASTRA_NET_OK) return status;
  if (count == NULL || (capacity > 0 && out == NULL))
    return mock_fail(err, ASTRA_NET_INVALID, -1, "poll: out or count is NULL");
  n = s->ready_count - s->ready_head;
  if (n > capacity) n = capacity;
  if (n > 0) memcpy(out, s->ready + s->ready_head, n * sizeof *out);
  s->ready_head += n;
  *count = n;
  return ASTRA_NET_OK;
}

static astra_net_status mock_exchange(astra_net_sim *opaque, astra_net_exchange *x,
                                      astra_net_error *err) {
  sim *s = (sim *)opaque;
  size_t i;
  astra_net_status status = enter(s, "exchange", 1, err);
  if (status != ASTRA_NET_OK) return status;
  if (x == NULL || x->struct_size < sizeof *x || (x->start_count > 0 && x->starts == NULL) ||
      x->completions == NULL || x->capacity == 0)
    return mock_fail(err, ASTRA_NET_INVALID, -1,
                     "exchange: x, starts or completions is NULL, or has no room");
  if (x->now_ps < s->now_ps || x->until_ps < x->now_ps)
    return mock_fail(err, ASTRA_NET_INVALID, -1,
                     "exchange: now_ps=%lld, until_ps=%lld, but the network is at %lld ps",
                     (long long)x->now_ps, (long long)x->until_ps, (long long)s->now_ps);
  status = check_items(s, "exchange", x->starts, x->start_count, err);
  if (status != ASTRA_NET_OK) return status;
  for (i = 0; i < x->start_count; i++) {
    if (x->starts[i].start_ps != x->now_ps || (i > 0 && x->starts[i].id <= x->starts[i - 1].id))
      return mock_fail(err, ASTRA_NET_INVALID, (int64_t)i,
                       "exchange: item %llu: start_ps must be now_ps, and id=%lld must ascend",
                       (unsigned long long)i, (long long)x->starts[i].id);
  }
  s->exchanging = 1;
  s->now_ps = x->now_ps;
  s->place = x->place;
  x->completion_count = 0;
  for (i = 0; i < x->start_count; i++) {
    const astra_net_transfer *t = &x->starts[i];
    s->submitted++;
    if (add_id(s, t->id) < 0) return no_memory(s, "exchange", err);
    status = start(s, "exchange", t, t->id, t->id + 1, err);
    if (status != ASTRA_NET_OK) return status;
  }
  while (s->events.count > 0) {
    const event *next = &s->events.items[0];
    int is_arrival;
    event e;
    if (next->time_ps > x->until_ps ||
        (next->time_ps == x->until_ps && next->place >= x->until_place))
      break;
    /* The host must react to a completion before anything that could come after its reaction. */
    if (x->completion_count > 0 && (next->time_ps > s->now_ps || draws(s, next))) break;
    if (x->completion_count == x->capacity) break;
    e = pop(&s->events);
    status = handle(s, "exchange", &e, &x->completions[x->completion_count], &is_arrival, err);
    if (status != ASTRA_NET_OK) return status;
    x->completion_count += (size_t)is_arrival;
  }
  x->next_ps = s->events.count > 0 ? s->events.items[0].time_ps : NEVER;
  x->next_place = s->events.count > 0 ? s->events.items[0].place : NEVER;
  if (x->completion_count > 0) {
    x->stop = ASTRA_NET_STOP_COMPLETION;
  } else if (s->events.count == 0 && in_flight(s) > 0 && !(s->bends & MOCK_BEND_STUCK)) {
    return stuck(s, "exchange", err);
  } else if (x->until_ps == NEVER) {
    x->stop = ASTRA_NET_STOP_IDLE;
  } else {
    x->stop = ASTRA_NET_STOP_REACHED;
    s->now_ps = x->until_ps;
  }
  x->now_ps = s->now_ps;
  x->place = s->place;
  return ASTRA_NET_OK;
}

static void mock_interrupt(astra_net_sim *opaque) {
  sim *s = (sim *)opaque;
  if (s != NULL) __atomic_store_n(&s->interrupted, 1, __ATOMIC_SEQ_CST);
}

static astra_net_status mock_set_link(astra_net_sim *opaque, int32_t link, int64_t at_ps,
                                      double bandwidth_scale, astra_net_error *err) {
  sim *s = (sim *)opaque;
  event e = {0, INT64_MIN, SCALE, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0}};
  astra_net_status status = enter(s, "set_link", s != NULL && s->exchanging, err);
  if (status != ASTRA_NET_OK) return status;
  if (link < 0 || link >= s->links)
    return mock_fail(err, ASTRA_NET_INVALID, -1, "set_link: link=%d but there are %d links",
                     (int)link, (int)s->links);
  if (at_ps < s->now_ps || !(bandwidth_scale >= 0) || !isfinite(bandwidth_scale))
    return mock_fail(err, ASTRA_NET_INVALID, -1,
                     "set_link: at_ps=%lld but now is %lld ps, or bandwidth_scale=%g is not 0 or "
                     "more",
                     (long long)at_ps, (long long)s->now_ps, bandwidth_scale);
  if (s->link_src[link] >= s->endpoints) return ASTRA_NET_OK; /* the way down from a switch */
  e.time_ps = at_ps;
  e.port = s->link_src[link];
  e.scale = bandwidth_scale;
  return push(&s->events, e) ? ASTRA_NET_OK : no_memory(s, "set_link", err);
}

static astra_net_status mock_stats(astra_net_sim *opaque, uint8_t *out, size_t capacity,
                                   size_t *needed, astra_net_error *err) {
  const sim *s = (const sim *)opaque;
  /* Five columns of at most 20 digits, a comma and a space each, and the names around them. */
  size_t room, used = 0;
  int column;
  int32_t i;
  char *text;
  astra_net_status status = enter(s, "stats", s != NULL && s->exchanging, err);
  if (status != ASTRA_NET_OK) return status;
  if (needed == NULL) return mock_fail(err, ASTRA_NET_INVALID, -1, "stats: needed is NULL");
  room = 256 + (size_t)s->endpoints * 5 * 22;
  text = malloc(room);
  if (text == NULL) return mock_fail(err, ASTRA_NET_INTERNAL, -1, "stats: out of memory");
  used += (size_t)sprintf(text, "{\"tables\": {\"links\": {");
  for (column = 0; column < 5; column++) {
    static const char *const names[] = {"link", "src", "dst", "bytes", "busy_ps"};
    used += (size_t)sprintf(text + used, "%s\"%s\": [", column > 0 ? ", " : "", names[column]);
    for (i = 0; i < s->endpoints; i++) {
      const port *p = &s->ports[i];
      const int64_t values[] = {i, i, -1, p->bytes, p->busy_ps};
      used += (size_t)sprintf(text + used, "%s%lld", i > 0 ? ", " : "", (long long)values[column]);
    }
    used += (size_t)sprintf(text + used, "]");
  }
  used += (size_t)sprintf(text + used, "}}}");
  *needed = used;
  if (out != NULL && capacity >= used) memcpy(out, text, used);
  free(text);
  return ASTRA_NET_OK;
}

/* A copy of `count` items in an array with the given room; NULL (and *bad) when memory is out. */
static void *copied(const void *items, size_t count, size_t room, size_t size, int *bad) {
  void *copy;
  if (room == 0) return NULL;
  copy = malloc(room * size);
  if (copy == NULL)
    *bad = 1;
  else
    memcpy(copy, items, count * size);
  return copy;
}

static astra_net_status mock_snapshot(astra_net_sim *opaque, astra_net_sim **out,
                                      astra_net_error *err) {
  sim *s = (sim *)opaque, *c;
  int32_t i;
  int bad = 0;
  astra_net_status status = enter(s, "snapshot", s != NULL && s->exchanging, err);
  if (status != ASTRA_NET_OK) return status;
  if (out == NULL) return mock_fail(err, ASTRA_NET_INVALID, -1, "snapshot: out is NULL");
  *out = NULL;
  c = malloc(sizeof *c);
  if (c == NULL) return mock_fail(err, ASTRA_NET_INTERNAL, -1, "snapshot: out of memory");
  *c = *s;
  c->interrupted = 0;
  c->events.items = copied(s->events.items, s->events.count, s->events.room, sizeof(event), &bad);
  c->starts.items = copied(s->starts.items, s->starts.count, s->starts.room, sizeof(event), &bad);
  c->ids = copied(s->ids, s->id_room, s->id_room, sizeof *s->ids, &bad);
  c->ready = copied(s->ready, s->ready_count, s->ready_room, sizeof *s->ready, &bad);
  c->link_src = copied(s->link_src, (size_t)s->links, (size_t)s->links + 1, sizeof(int32_t), &bad);
  c->ports = copied(s->ports, (size_t)s->endpoints, (size_t)s->endpoints, sizeof(port), &bad);
  for (i = 0; c->ports != NULL && i < c->endpoints; i++)
    c->ports[i].queue = copied(s->ports[i].queue, s->ports[i].tail, s->ports[i].room,
                               sizeof(astra_net_transfer), &bad);
  if (bad) {
    mock_destroy((astra_net_sim *)c);
    return mock_fail(err, ASTRA_NET_INTERNAL, -1, "snapshot: out of memory");
  }
  *out = (astra_net_sim *)c;
  return ASTRA_NET_OK;
}

void mock_bend(astra_net_sim *opaque, uint32_t bends) { ((sim *)opaque)->bends = bends; }

void mock_table(uint32_t version, astra_net_backend *out) {
  out->info = mock_get_info;
  out->create = mock_create;
  out->destroy = mock_destroy;
  out->submit = mock_submit;
  out->advance = mock_advance;
  out->poll = mock_poll;
  out->interrupt = mock_interrupt;
  out->set_link = mock_set_link;
  out->stats = mock_stats;
  out->snapshot = mock_snapshot;
  if (version >= ASTRA_NET_VERSION_1_1) out->exchange = mock_exchange;
}
