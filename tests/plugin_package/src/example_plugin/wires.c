/* SPDX-License-Identifier: MIT
 * A network in plain C: each pair of ranks has a wire of 2 us and 1 GB/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "astra_net.h"

enum { LATENCY_PS = 2000000, PS_PER_BYTE = 1000 };

typedef struct Arrival {
  int64_t time_ps, id;
  struct Arrival *next;
} Arrival;

struct astra_net_sim {
  int32_t endpoints;
  int64_t now_ps;
  Arrival *coming; /* in order of time, then of id */
  Arrival *arrived;
};

/* The caller's error may be of an older, smaller kind, or none. */
static astra_net_status wrong(astra_net_error *err, astra_net_status status, int64_t item,
                              const char *what) {
  const size_t head = offsetof(astra_net_error, message);
  if (err != NULL && err->struct_size > head) {
    err->item = item;
    snprintf(err->message, err->struct_size - head, "item %lld: %s", (long long)item, what);
  }
  return status;
}

static astra_net_status info(astra_net_info *out, astra_net_error *err) {
  /* An older host has a smaller struct. */
  uint32_t size = out->struct_size < sizeof *out ? out->struct_size : (uint32_t)sizeof *out;
  astra_net_info own = {0};
  (void)err;
  own.struct_size = size;
  own.abi_version = ASTRA_NET_VERSION_1_0;
  own.name = "private-wires";
  own.version = "1.0";
  own.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL;
  own.resolution_ps = 1;
  own.max_in_flight = INT64_MAX;
  own.traffic_classes = 1;
  memcpy(out, &own, size);
  return ASTRA_NET_OK;
}

static astra_net_status create(const astra_net_config *config, const astra_net_host *host,
                               astra_net_sim **out, astra_net_error *err) {
  (void)host;
  if (config == NULL || config->struct_size < sizeof *config)
    return wrong(err, ASTRA_NET_INVALID, -1, "config is missing or of an older kind");
  if (config->option_count != 0) return wrong(err, ASTRA_NET_INVALID, 0, config->options[0].key);
  *out = calloc(1, sizeof **out);
  if (*out == NULL) return wrong(err, ASTRA_NET_INTERNAL, -1, "no memory");
  (*out)->endpoints = config->endpoints;
  return ASTRA_NET_OK;
}

static void drop(Arrival *list) {
  while (list != NULL) {
    Arrival *next = list->next;
    free(list);
    list = next;
  }
}

static void destroy(astra_net_sim *sim) {
  if (sim == NULL) return;
  drop(sim->coming);
  drop(sim->arrived);
  free(sim);
}

static int flies(const Arrival *list, int64_t id) {
  for (; list != NULL; list = list->next)
    if (list->id == id) return 1;
  return 0;
}

static const char *fault(const astra_net_sim *sim, const astra_net_transfer *items, size_t at) {
  const astra_net_transfer *one = &items[at];
  if (one->start_ps < sim->now_ps) return "start_ps is in the past";
  if (one->bytes <= 0 || one->bytes > INT64_MAX / 4 / PS_PER_BYTE) return "bytes is out of range";
  if (one->start_ps > INT64_MAX / 2) return "start_ps is too late";
  if (one->src < 0 || one->src >= sim->endpoints) return "src is no endpoint";
  if (one->dst < 0 || one->dst >= sim->endpoints || one->dst == one->src)
    return "dst is no other endpoint";
  if (one->traffic_class != 0) return "traffic_class is not 0";
  if (one->flags != 0 || one->reserved != 0) return "flags and reserved must be 0";
  if (flies(sim->coming, one->id) || flies(sim->arrived, one->id)) return "id is in use";
  for (size_t before = 0; before < at; before++)
    if (items[before].id == one->id) return "id is given twice";
  return NULL;
}

static int earlier(const Arrival *one, const Arrival *other) {
  if (one->time_ps != other->time_ps) return one->time_ps < other->time_ps;
  return one->id < other->id;
}

static astra_net_status submit(astra_net_sim *sim, const astra_net_transfer *items, size_t n,
                               size_t *accepted, astra_net_error *err) {
  *accepted = 0;
  for (size_t at = 0; at < n; at++) {
    const char *what = fault(sim, items, at);
    if (what != NULL) return wrong(err, ASTRA_NET_INVALID, (int64_t)at, what);
  }
  for (size_t at = 0; at < n; at++) {
    Arrival *new = malloc(sizeof *new);
    Arrival **place = &sim->coming;
    if (new == NULL) return wrong(err, ASTRA_NET_INTERNAL, (int64_t)at, "no memory");
    new->time_ps = items[at].start_ps + LATENCY_PS + PS_PER_BYTE * items[at].bytes;
    new->id = items[at].id;
    while (*place != NULL && earlier(*place, new)) place = &(*place)->next;
    new->next = *place;
    *place = new;
  }
  *accepted = n;
  return ASTRA_NET_OK;
}

static astra_net_status advance(astra_net_sim *sim, int64_t until_ps, int64_t lookahead_ps,
                                int64_t *now_ps, uint32_t *stop, astra_net_error *err) {
  Arrival **last = &sim->arrived;
  (void)lookahead_ps; /* a permission to go on, which need not be used */
  if (sim->arrived != NULL) return wrong(err, ASTRA_NET_BAD_STATE, -1, "poll first");
  if (until_ps < sim->now_ps) return wrong(err, ASTRA_NET_INVALID, -1, "until_ps has passed");
  if (sim->coming == NULL && until_ps == ASTRA_NET_TIME_NEVER) {
    *now_ps = sim->now_ps;
    *stop = ASTRA_NET_STOP_IDLE;
    return ASTRA_NET_OK;
  }
  if (sim->coming != NULL && sim->coming->time_ps < until_ps) until_ps = sim->coming->time_ps;
  sim->now_ps = *now_ps = until_ps;
  while (sim->coming != NULL && sim->coming->time_ps <= until_ps) {
    *last = sim->coming;
    sim->coming = sim->coming->next;
    (*last)->next = NULL;
    last = &(*last)->next;
  }
  *stop = sim->arrived != NULL ? ASTRA_NET_STOP_COMPLETION : ASTRA_NET_STOP_REACHED;
  return ASTRA_NET_OK;
}

static astra_net_status poll(astra_net_sim *sim, astra_net_completion *out, size_t capacity,
                             size_t *count, astra_net_error *err) {
  (void)err;
  for (*count = 0; *count < capacity && sim->arrived != NULL; ++*count) {
    Arrival *one = sim->arrived;
    memset(&out[*count], 0, sizeof *out);
    out[*count].id = one->id;
    out[*count].time_ps = one->time_ps;
    out[*count].kind = ASTRA_NET_DELIVERED;
    sim->arrived = one->next;
    free(one);
  }
  return ASTRA_NET_OK;
}

astra_net_status astra_net_backend_init(uint32_t version, astra_net_backend *out,
                                        astra_net_error *err) {
  (void)err;
  if (version != ASTRA_NET_VERSION_1_0) return ASTRA_NET_UNSUPPORTED;
  out->abi_version = version;
  out->info = info;
  out->create = create;
  out->destroy = destroy;
  out->submit = submit;
  out->advance = advance;
  out->poll = poll;
  return ASTRA_NET_OK;
}
