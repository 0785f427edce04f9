/* SPDX-License-Identifier: MIT
 *
 * The fault injector: the reference backend of mock.c behind a table that can misbehave.
 *
 * Three options of create() choose the fault: `fault` (below), `fault.call` (the entry it happens
 * in; for most semantic faults it is implied) and `fault.nth` (the n-th call of that entry, or the
 * n-th completion; 0, the default, is every one).  Before create() there are no options, so the
 * environment variable ASTRA_NET_MOCK gives the same three as "fault,call,nth".
 *
 * In any call:      status:N garbage hang abort segv exit stdout chdir rounding scribble
 * In an answer:     lie:FIELD=N (the field is N), lie:FIELD+N, lie:FIELD-N (it is off by N); a field
 *                   of a record is that of the first record of the call
 *                   chaos:SEED (any fields, any values, any order, now and then, in each of submit,
 *                   advance, poll and exchange; an even SEED leaves out what engines
 *                   count in their own way: ids, places, and with them the next event)
 * Of one rule each: see `named` below. */
#include "mock.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* clang-format off */
enum fault {
  NONE,
  /* in any call */
  STATUS, GARBAGE, HANG, ABORT, SEGV, EXIT, STDOUT, CHDIR, ROUNDING, LIE, CHAOS,
  /* bends of the model */
  SUBMISSION, NARROW, DOUBLE, STUCK,
  /* of one rule each */
  ANY_VERSION, MISSING, SCRIBBLE, PARTIAL, SWALLOW, OVERSHOOT, HALF, UNORDERED, DRAIN, DRIFT,
  EARLY, LATE, DUPLICATE, LOST, SPLIT, THREAD, LOG_THREAD, PLACE, HASTE, COMMIT
};
/* clang-format on */

static const struct {
  const char *name;
  enum fault fault;
  const char *call; /* the implied entry */
} named[] = {
    {"garbage", GARBAGE, "advance"},
    {"hang", HANG, "advance"},
    {"abort", ABORT, "advance"},
    {"segv", SEGV, "advance"},
    {"exit", EXIT, "advance"},
    {"stdout", STDOUT, "advance"},
    {"chdir", CHDIR, "advance"},
    {"rounding", ROUNDING, "advance"},
    {"submission", SUBMISSION, ""},  /* R7: order by submission, not by id */
    {"narrow", NARROW, ""},          /* R14: sizes through int32 */
    {"double", DOUBLE, ""},          /* R14: times through double */
    {"stuck", STUCK, ""},            /* R13: says IDLE with transfers in flight */
    {"any-version", ANY_VERSION, ""}, /* R1: accepts every version */
    {"missing", MISSING, ""},        /* a required entry (named by call) is NULL */
    {"scribble", SCRIBBLE, "submit"}, /* R2: writes into the caller's array */
    {"partial", PARTIAL, "submit"},  /* R3: keeps what came before the bad item */
    {"swallow", SWALLOW, "submit"},  /* R4: says that it took one less than it took */
    {"overshoot", OVERSHOOT, "advance"}, /* R5: runs on past a completion */
    {"half", HALF, "poll"},          /* R6: holds a completion of this instant back */
    {"unordered", UNORDERED, "poll"}, /* R7: descending time */
    {"drain", DRAIN, "advance"},     /* R7: advances over records that nobody read */
    {"drift", DRIFT, "poll"},        /* R7: differs from run to run */
    {"early", EARLY, "poll"},        /* R8: faster than physics */
    {"late", LATE, "poll"},          /* R6: a completion in the future */
    {"duplicate", DUPLICATE, "poll"}, /* R8 */
    {"lost", LOST, "poll"},          /* R8 */
    {"split", SPLIT, "poll"},        /* R9: the number of calls shows in the times */
    {"thread", THREAD, "advance"},   /* R10: bound to the thread that created it */
    {"log-thread", LOG_THREAD, "advance"}, /* R11: logs from a thread of its own */
    {"place", PLACE, "exchange"},    /* exchange: draws a place that it does not need */
    {"haste", HASTE, "exchange"},    /* exchange: runs on after a completion */
    {"commit", COMMIT, "exchange"},  /* R3: a refused exchange() decides for exchange() */
};

typedef struct plan {
  enum fault fault;
  int32_t status;
  char call[16];
  long nth;
  char field[20]; /* of LIE */
  char how;       /* = + - */
  int64_t amount; /* of LIE; the seed of CHAOS */
} plan;

typedef struct wrapped {
  astra_net_sim *inner;
  plan plan;
  astra_net_host host;
  long calls, records, advances, number;
  pthread_t creator;
  astra_net_completion held[64]; /* HALF, DRAIN */
  size_t held_count;
  int64_t held_advance;
  uint64_t chance;          /* CHAOS: the state of its random numbers */
  astra_net_completion old; /* CHAOS: a record that was told before */
} wrapped;

static astra_net_backend mock; /* the honest table */
static long created;           /* simulations, for the fault that differs from run to run */

/* ---- choosing the fault ---- */

/* 1 if `name` is a fault; fills fault, status and the implied call. */
static int choose(plan *p, const char *name) {
  size_t i;
  if (strncmp(name, "status:", 7) == 0) {
    p->fault = STATUS;
    p->status = (int32_t)strtol(name + 7, NULL, 10);
    if (p->call[0] == '\0') strcpy(p->call, "advance");
    return 1;
  }
  if (strncmp(name, "lie:", 4) == 0) {
    const size_t length = strcspn(name += 4, "=+-");
    if (name[length] == '\0' || length >= sizeof p->field) return 0;
    p->fault = LIE;
    memcpy(p->field, name, length);
    p->field[length] = '\0';
    p->how = name[length];
    p->amount = strtoll(name + length + 1, NULL, 10);
    return 1;
  }
  if (strncmp(name, "chaos:", 6) == 0) {
    p->fault = CHAOS;
    p->amount = strtoll(name + 6, NULL, 10);
    return 1;
  }
  for (i = 0; i < sizeof named / sizeof *named; i++) {
    if (strcmp(name, named[i].name) != 0) continue;
    p->fault = named[i].fault;
    if (p->call[0] == '\0') strcpy(p->call, named[i].call);
    return 1;
  }
  return 0;
}

static plan from_environment(void) {
  plan p = {NONE, 0, "", 0, "", 0, 0};
  const char *text = getenv("ASTRA_NET_MOCK");
  char name[32] = "";
  if (text == NULL) return p;
  sscanf(text, "%31[^,],%15[^,],%ld", name, p.call, &p.nth);
  choose(&p, name);
  return p;
}

/* Is this call the one in which the fault happens? */
static int due(wrapped *w, const char *call) {
  if (strcmp(w->plan.call, call) != 0) return 0;
  w->calls++;
  return w->plan.nth == 0 || w->plan.nth == w->calls;
}

/* ---- the faults that any call can have ---- */

static void die_or_hang(enum fault fault) {
  switch (fault) {
    case HANG:
      for (;;) sleep(1);
    case ABORT:
      abort();
    case SEGV:
      raise(SIGSEGV);
      break;
    case EXIT:
      exit(0);
    case STDOUT:
      printf("a backend that talks\n");
      fflush(stdout);
      break;
    case CHDIR:
      if (chdir("/") != 0) abort();
      break;
    case ROUNDING:
      fesetround(FE_UPWARD);
      break;
    default:
      break;
  }
}

/* 1: the call shall return *status at once. */
static int general(wrapped *w, const char *call, astra_net_status *status, astra_net_error *err) {
  if (w->plan.fault == LIE || w->plan.fault == CHAOS || !due(w, call)) return 0;
  die_or_hang(w->plan.fault);
  if (w->plan.fault == STATUS) {
    *status =
        mock_fail(err, w->plan.status, -1, "%s: injected status %d", call, (int)w->plan.status);
    return 1;
  }
  if (w->plan.fault == GARBAGE) {
    *status = mock_fail(err, 99, 12345, "\xff\xfe%s", call);
    return 1;
  }
  return 0;
}

/* ---- lies in an answer ---- */

static int64_t bent(const plan *p, int64_t honest) {
  const uint64_t amount = (uint64_t)p->amount;
  return p->how == '='
             ? p->amount
             : (int64_t)(p->how == '+' ? (uint64_t)honest + amount : (uint64_t)honest - amount);
}

#define BEND(object, member, type) \
  if (strcmp(p->field, #member) == 0) (object)->member = (type)bent(p, (int64_t)(object)->member)

static void lie_of_record(const plan *p, astra_net_completion *record) {
  BEND(record, id, int64_t);
  BEND(record, time_ps, int64_t);
  BEND(record, kind, uint32_t);
  BEND(record, outcome, int32_t);
  BEND(record, reserved, int64_t);
}

static void lie_of_exchange(const plan *p, astra_net_exchange *x) {
  if (x->completion_count > 0) lie_of_record(p, x->completions);
  BEND(x, completion_count, size_t);
  BEND(x, capacity, size_t);
  BEND(x, now_ps, int64_t);
  BEND(x, stop, uint32_t);
  BEND(x, place, int64_t);
  BEND(x, next_ps, int64_t);
  BEND(x, next_place, int64_t);
  if (strcmp(p->field, "completions") == 0)
    x->completions = (astra_net_completion *)(intptr_t)bent(p, (int64_t)(intptr_t)x->completions);
}

static int lies(wrapped *w, const char *call) { return w->plan.fault == LIE && due(w, call); }

/* ---- any number of lies in any answer ---- */

/* A random number below `bound`, the same on every machine (splitmix64). */
static uint64_t below(wrapped *w, uint64_t bound) {
  uint64_t z = (w->chance += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % bound;
}

/* Does chaos strike this call?  The seed says how often: in each, or in one of up to 64. */
static int strikes(wrapped *w) {
  return w->plan.fault == CHAOS && below(w, 1 + (uint64_t)w->plan.amount / 2 % 64) == 0;
}

/* A lie of the kind that lie:FIELD tells. */
static plan any_lie(wrapped *w, const char *const *fields, size_t count) {
  static const int64_t edges[] = {0,         INT64_MAX,  INT64_MIN, INT32_MAX,
                                  INT32_MIN, UINT32_MAX, 1 << 20,   (int64_t)1 << 53};
  plan p = w->plan;
  snprintf(p.field, sizeof p.field, "%s", fields[below(w, count)]);
  p.how = "=+-"[below(w, 3)];
  p.amount =
      below(w, 3) == 0 ? edges[below(w, sizeof edges / sizeof *edges)] : (int64_t)below(w, 75) - 4;
  return p;
}

/* Bend, swap, repeat or lose one of the records that are about to be told. */
static void chaos_of_records(wrapped *w, astra_net_completion *records, size_t *count,
                             size_t capacity) {
  static const char *const fields[] = {"time_ps", "kind", "outcome", "reserved", "id"};
  const size_t ids = w->plan.amount % 2 != 0;
  astra_net_completion *one, *other, kept;
  plan lie;
  if (*count == 0) return;
  one = &records[below(w, *count)];
  other = &records[below(w, *count)];
  kept = *one;
  switch (below(w, 4 + ids)) {
    case 0:
      lie = any_lie(w, fields, 4 + ids);
      lie_of_record(&lie, one);
      break;
    case 1:
      *one = *other;
      *other = kept;
      break;
    case 2:
      if (*count < capacity) records[(*count)++] = kept;
      break;
    case 3:
      *one = records[--*count];
      break;
    default:
      *one = w->old;
  }
  w->old = kept;
}

static void chaos_of_exchange(wrapped *w, astra_net_exchange *x) {
  static const char *const fields[] = {"completion_count", "capacity", "now_ps",  "stop",
                                       "completions",      "place",    "next_ps", "next_place"};
  const size_t count = sizeof fields / sizeof *fields;
  const size_t before = x->completion_count;
  plan lie;
  if (below(w, 2) == 0) {
    chaos_of_records(w, x->completions, &x->completion_count, x->capacity);
    return;
  }
  lie = any_lie(w, fields, w->plan.amount % 2 != 0 ? count : count - 3);
  /* What lies beyond the records is the engine's own and differs between engines. */
  memset(x->completions + before, 0xff, (x->capacity - before) * sizeof *x->completions);
  lie_of_exchange(&lie, x);
}

/* ---- the table ---- */

static astra_net_status fault_info(astra_net_info *out, astra_net_error *err) {
  const plan p = from_environment();
  astra_net_status status = mock.info(out, err);
  if (strcmp(p.call, "info") != 0) return status;
  die_or_hang(p.fault);
  if (p.fault == STATUS) return mock_fail(err, p.status, -1, "info: injected status");
  if (p.fault == GARBAGE) {
    out->name = NULL;
    out->resolution_ps = -1;
  }
  return status;
}

static astra_net_status fault_create(const astra_net_config *config, const astra_net_host *host,
                                     astra_net_sim **out, astra_net_error *err) {
  wrapped *w;
  astra_net_option *options;
  astra_net_config honest;
  astra_net_status status;
  uint32_t bends;
  size_t i, count = 0;
  if (config == NULL || config->struct_size < sizeof *config || out == NULL ||
      (config->option_count > 0 && config->options == NULL))
    return mock.create(config, host, out, err);
  *out = NULL;
  w = calloc(1, sizeof *w);
  options = calloc(config->option_count + 1, sizeof *options);
  if (w == NULL || options == NULL) {
    free(w);
    free(options);
    return mock_fail(err, ASTRA_NET_INTERNAL, -1, "create: out of memory");
  }
  w->plan = from_environment();
  w->creator = pthread_self();
  w->number = ++created;
  if (host != NULL && host->struct_size >= sizeof *host) w->host = *host;
  for (i = 0; i < config->option_count; i++) {
    const astra_net_option option = config->options[i];
    if (option.key == NULL || option.value == NULL) {
      options[count++] = option;
    } else if (strcmp(option.key, "fault.call") == 0) {
      snprintf(w->plan.call, sizeof w->plan.call, "%s", option.value);
    } else if (strcmp(option.key, "fault.nth") == 0) {
      w->plan.nth = strtol(option.value, NULL, 10);
    } else if (strcmp(option.key, "fault") != 0) {
      options[count++] = option;
    }
  }
  for (i = 0; i < config->option_count; i++) {
    const astra_net_option option = config->options[i];
    if (option.key == NULL || option.value == NULL || strcmp(option.key, "fault") != 0) continue;
    if (!choose(&w->plan, option.value)) {
      status = mock_fail(err, ASTRA_NET_INVALID, (int64_t)i, "create: there is no fault '%s'",
                         option.value);
      free(options);
      free(w);
      return status;
    }
  }
  w->chance = (uint64_t)w->plan.amount;
  honest = *config;
  honest.options = options;
  honest.option_count = count;
  if (!general(w, "create", &status, err)) status = mock.create(&honest, host, &w->inner, err);
  free(options);
  if (status != ASTRA_NET_OK) {
    free(w);
    return status;
  }
  bends = w->plan.fault == SUBMISSION ? MOCK_BEND_SUBMISSION
          : w->plan.fault == NARROW   ? MOCK_BEND_NARROW
          : w->plan.fault == DOUBLE   ? MOCK_BEND_DOUBLE
          : w->plan.fault == STUCK    ? MOCK_BEND_STUCK
                                      : 0;
  mock_bend(w->inner, bends);
  *out = (astra_net_sim *)w;
  return ASTRA_NET_OK;
}

static void fault_destroy(astra_net_sim *sim) {
  wrapped *w = (wrapped *)sim;
  astra_net_status ignored;
  if (w == NULL) return;
  general(w, "destroy", &ignored, NULL);
  mock.destroy(w->inner);
  free(w);
}

static astra_net_status no_sim(const char *call, astra_net_error *err) {
  return mock_fail(err, ASTRA_NET_INVALID, -1, "%s: sim is NULL", call);
}

static astra_net_status fault_submit(astra_net_sim *sim, const astra_net_transfer *items, size_t n,
                                     size_t *accepted, astra_net_error *err) {
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  if (w == NULL) return no_sim("submit", err);
  if (general(w, "submit", &status, err)) return status;
  status = mock.submit(w->inner, items, n, accepted, err);
  if (w->plan.fault == SCRIBBLE && n > 0) ((astra_net_transfer *)items)[0].reserved = 1;
  if (w->plan.fault == SWALLOW && status == ASTRA_NET_OK && *accepted > 1) --*accepted;
  if (w->plan.fault == PARTIAL && status == ASTRA_NET_INVALID && err != NULL && err->item > 0) {
    size_t some;
    mock.submit(w->inner, items, (size_t)err->item, &some, NULL);
  }
  if (lies(w, "submit")) *accepted = (size_t)bent(&w->plan, (int64_t)*accepted);
  if (status == ASTRA_NET_OK && strikes(w)) *accepted = (size_t)below(w, n + 3);
  return status;
}

static void *log_from_elsewhere(void *argument) {
  wrapped *w = argument;
  w->host.log(w->host.context, 20, "from a thread of the backend");
  return NULL;
}

static astra_net_status fault_advance(astra_net_sim *sim, int64_t until_ps, int64_t lookahead_ps,
                                      int64_t *now_ps, uint32_t *stop, astra_net_error *err) {
  static const char *const fields[] = {"now_ps", "stop"};
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  plan lie;
  int chaos;
  if (w == NULL) return no_sim("advance", err);
  if (general(w, "advance", &status, err)) return status;
  w->advances++;
  if (w->plan.fault == OVERSHOOT) lookahead_ps = INT64_MAX;
  if (w->plan.fault == DRAIN && w->held_count == 0)
    mock.poll(w->inner, w->held, 64, &w->held_count, NULL);
  if (w->plan.fault == THREAD && !pthread_equal(w->creator, pthread_self()))
    return mock_fail(err, ASTRA_NET_INTERNAL, -1, "advance: called from another thread");
  if (w->plan.fault == LOG_THREAD && w->host.log != NULL) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, log_from_elsewhere, w) == 0) pthread_join(thread, NULL);
  }
  status = mock.advance(w->inner, until_ps, lookahead_ps, now_ps, stop, err);
  lie = w->plan;
  chaos = status == ASTRA_NET_OK && strikes(w);
  if (chaos) lie = any_lie(w, fields, 2);
  if (chaos || lies(w, "advance")) {
    if (strcmp(lie.field, "now_ps") == 0) *now_ps = bent(&lie, *now_ps);
    if (strcmp(lie.field, "stop") == 0) *stop = (uint32_t)bent(&lie, *stop);
  }
  return status;
}

/* Spoil what poll() read: `count` records of `out`. */
static void spoil(wrapped *w, astra_net_completion *out, size_t capacity, size_t *count) {
  size_t i, n = *count;
  for (i = 0; i < n; i++) {
    w->records++;
    if (w->plan.nth != 0 && w->plan.nth != w->records) continue;
    switch (w->plan.fault) {
      case EARLY:
        out[i].time_ps /= 2;
        break;
      case LATE:
        out[i].time_ps += 1000000;
        break;
      case DRIFT:
        out[i].time_ps -= w->number;
        break;
      case SPLIT:
        out[i].time_ps -= w->advances;
        break;
      case DUPLICATE:
        if (*count < capacity) out[(*count)++] = out[i];
        break;
      case LOST:
        out[i] = out[--*count];
        n = *count;
        break;
      default:
        break;
    }
  }
  if (w->plan.fault == UNORDERED && *count > 1) {
    const astra_net_completion first = out[0];
    out[0] = out[*count - 1];
    out[*count - 1] = first;
  }
}

static astra_net_status fault_poll(astra_net_sim *sim, astra_net_completion *out, size_t capacity,
                                   size_t *count, astra_net_error *err) {
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  size_t released = 0;
  if (w == NULL) return no_sim("poll", err);
  if (general(w, "poll", &status, err)) return status;
  if (w->held_count > 0 && out != NULL && count != NULL && capacity >= w->held_count &&
      (w->plan.fault == DRAIN || w->advances != w->held_advance)) {
    released = w->held_count;
    memcpy(out, w->held, released * sizeof *out);
    w->held_count = 0;
  }
  status = mock.poll(w->inner, out + released, capacity - released, count, err);
  if (status != ASTRA_NET_OK) return status;
  *count += released;
  if (w->plan.fault == HALF && *count > 1 && w->held_count == 0) {
    w->held[w->held_count++] = out[--*count];
    w->held_advance = w->advances;
  }
  spoil(w, out, capacity, count);
  if (lies(w, "poll")) {
    if (*count > 0) lie_of_record(&w->plan, out);
    if (strcmp(w->plan.field, "count") == 0) *count = (size_t)bent(&w->plan, (int64_t)*count);
  }
  if (strikes(w)) {
    const size_t before = *count;
    chaos_of_records(w, out, count, capacity);
    if (below(w, 8) == 0) {
      memset(out + before, 0xff, (capacity - before) * sizeof *out);
      *count = (size_t)((int64_t)*count + (int64_t)below(w, 67) - 3);
    }
  }
  return ASTRA_NET_OK;
}

static void fault_interrupt(astra_net_sim *sim) {
  wrapped *w = (wrapped *)sim;
  if (w != NULL) mock.interrupt(w->inner);
}

static astra_net_status fault_set_link(astra_net_sim *sim, int32_t link, int64_t at_ps,
                                       double bandwidth_scale, astra_net_error *err) {
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  if (w == NULL) return no_sim("set_link", err);
  if (general(w, "set_link", &status, err)) return status;
  return mock.set_link(w->inner, link, at_ps, bandwidth_scale, err);
}

static astra_net_status fault_stats(astra_net_sim *sim, uint8_t *out, size_t capacity,
                                    size_t *needed, astra_net_error *err) {
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  if (w == NULL) return no_sim("stats", err);
  if (general(w, "stats", &status, err)) return status;
  status = mock.stats(w->inner, out, capacity, needed, err);
  if (w->plan.fault == HALF && out != NULL && *needed > 0) out[0] = '?';
  return status;
}

static astra_net_status fault_snapshot(astra_net_sim *sim, astra_net_sim **out,
                                       astra_net_error *err) {
  wrapped *w = (wrapped *)sim, *copy;
  astra_net_status status;
  if (w == NULL) return no_sim("snapshot", err);
  if (general(w, "snapshot", &status, err)) return status;
  copy = malloc(sizeof *copy);
  if (copy == NULL) return mock_fail(err, ASTRA_NET_INTERNAL, -1, "snapshot: out of memory");
  *copy = *w;
  status = mock.snapshot(w->inner, out == NULL ? NULL : &copy->inner, err);
  if (status != ASTRA_NET_OK) {
    free(copy);
    return status;
  }
  *out = (astra_net_sim *)copy;
  return ASTRA_NET_OK;
}

static astra_net_status fault_exchange(astra_net_sim *sim, astra_net_exchange *x,
                                       astra_net_error *err) {
  wrapped *w = (wrapped *)sim;
  astra_net_status status;
  size_t first;
  if (w == NULL) return no_sim("exchange", err);
  if (general(w, "exchange", &status, err)) return status;
  status = mock.exchange(w->inner, x, err);
  if (status == ASTRA_NET_INVALID && w->plan.fault == COMMIT && x != NULL) {
    astra_net_exchange empty = *x;
    empty.start_count = 0;
    mock.exchange(w->inner, &empty, NULL);
  }
  if (status != ASTRA_NET_OK) return status;
  if (w->plan.fault == PLACE) x->place++;
  first = x->completion_count;
  if (w->plan.fault == HASTE && first > 0 && first < x->capacity) {
    astra_net_exchange more = *x;
    more.start_count = 0;
    more.completions += first;
    more.capacity -= first;
    status = mock.exchange(w->inner, &more, err);
    more.completions = x->completions;
    more.capacity = x->capacity;
    more.completion_count += first;
    more.stop = ASTRA_NET_STOP_COMPLETION;
    *x = more;
  }
  if (lies(w, "exchange")) lie_of_exchange(&w->plan, x);
  if (strikes(w)) chaos_of_exchange(w, x);
  return status;
}

ASTRA_NET_EXPORT astra_net_status astra_net_backend_init(uint32_t version, astra_net_backend *out,
                                                         astra_net_error *err) {
  const plan p = from_environment();
  const size_t size = version == ASTRA_NET_VERSION_1_0 ? offsetof(astra_net_backend, exchange)
                                                       : offsetof(astra_net_backend, save);
  if (strcmp(p.call, "init") == 0) {
    die_or_hang(p.fault);
    if (p.fault == STATUS) return mock_fail(err, p.status, -1, "init: injected status");
  }
  /* nth names the newest version that this library speaks. */
  if (p.fault != ANY_VERSION && version != ASTRA_NET_VERSION_1_0 &&
      version != ASTRA_NET_VERSION_1_1)
    return mock_fail(err, ASTRA_NET_UNSUPPORTED, -1, "init: version %u is not 1000 or 1001",
                     (unsigned)version);
  if (strcmp(p.call, "version") == 0 && (long)version > p.nth)
    return mock_fail(err, ASTRA_NET_UNSUPPORTED, -1, "init: version %u is newer than %ld",
                     (unsigned)version, p.nth);
  if (out == NULL || out->struct_size < size)
    return mock_fail(err, ASTRA_NET_INVALID, -1, "init: out is NULL or too small");
  mock.struct_size = sizeof mock;
  mock_table(ASTRA_NET_VERSION_1_1, &mock);
  out->struct_size = (uint32_t)size;
  out->abi_version = version;
  out->info = fault_info;
  out->create = fault_create;
  out->destroy = fault_destroy;
  out->submit = fault_submit;
  out->advance = fault_advance;
  out->poll = fault_poll;
  out->interrupt = fault_interrupt;
  out->set_link = fault_set_link;
  out->stats = fault_stats;
  out->snapshot = fault_snapshot;
  if (version >= ASTRA_NET_VERSION_1_1) out->exchange = fault_exchange;
  if (p.fault == MISSING) {
    if (strcmp(p.call, "poll") == 0) out->poll = NULL;
    if (strcmp(p.call, "advance") == 0) out->advance = NULL;
    if (strcmp(p.call, "create") == 0) out->create = NULL;
    if (strcmp(p.call, "exchange") == 0) out->exchange = NULL;
    if (strcmp(p.call, "stats") == 0) out->stats = NULL;
    if (strcmp(p.call, "snapshot") == 0) out->snapshot = NULL;
  }
  return ASTRA_NET_OK;
}
