/* SPDX-License-Identifier: MIT
 *
 * A backend that ends, blocks or spoils its process, in the call and the way that the option
 * `fault` says (WHAT_CALL), and whose statistics are the text of the option `stats`.  Each transfer
 * takes 1 us.  The option `reached`, or ASTRA_BRIDGE_REACHED in the environment, names a file that it
 * makes right before a fault.  With -DPEEK it can be a part of another network, to which it lies as
 * the option `lie` says. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef DATA /* the symbol is there, and no function */
#define astra_net_backend_init declared_only
#include "astra_net.h"
#undef astra_net_backend_init
#else
#include "astra_net.h"
#endif

struct astra_net_sim {
  char fault[64], reached[512], lie[64];
  char *stats;
  astra_net_transfer waiting[4096];
  astra_net_completion done[4096];
  size_t count, done_count;
  int64_t now;
};

static void *chatter(void *unused) {
  for (;;) {
    int i;
    for (i = 3; i < 300; i++) (void)!write(i, "\x01\x02garbage", 9);
  }
  return unused;
}

static void misbehave(const char *what, const char *reached) {
  if (reached == NULL || !*reached) reached = getenv("ASTRA_BRIDGE_REACHED");
  if (reached != NULL && *reached) close(open(reached, O_CREAT | O_WRONLY, 0600));
  if (!strcmp(what, "segv")) *(volatile int *)8 = 1;
  if (!strcmp(what, "abort")) abort();
  if (!strcmp(what, "exit")) exit(0);
  if (!strcmp(what, "_exit")) _exit(0);
  if (!strcmp(what, "hang"))
    for (;;) pause();
  if (!strcmp(what, "spin"))
    for (;;) __asm__ volatile("");
  if (!strcmp(what, "signal40")) {
    signal(40, SIG_DFL);
    raise(40);
  }
  if (!strcmp(what, "closeall")) {
    int i;
    for (i = 0; i < 1024; i++) close(i);
  }
  if (!strcmp(what, "writeall")) {
    int i;
    for (i = 0; i < 1024; i++) (void)!write(i, "\xff\xff\xff\xff\xff\xff\xff\x7f garbage", 16);
  }
  if (!strcmp(what, "chatter")) {
    pthread_t thread;
    pthread_create(&thread, NULL, chatter, NULL);
    usleep(100000);
  }
  if (!strcmp(what, "print"))
    for (;;) (void)!write(1, "words words words words words\n", 30);
  if (!strcmp(what, "overwrite")) memset((char *)&what - 4096, 0x41, 1 << 20);
  if (!strcmp(what, "fork")) /* a helper that stays */
    if (fork() == 0)
      for (;;) pause();
  if (!strcmp(what, "forkdie")) {
    if (fork() == 0)
      for (;;) pause();
    abort();
  }
  if (!strcmp(what, "kill")) raise(SIGKILL);
  if (!strcmp(what, "stop")) raise(SIGSTOP);
}

static void fault(astra_net_sim *s, const char *call) {
  char *under = strchr(s->fault, '_');
  char what[64] = "";
  if (s->fault[0] == '_') under = strchr(s->fault + 1, '_');
  if (under == NULL || strcmp(under + 1, call) != 0) return;
  memcpy(what, s->fault, (size_t)(under - s->fault));
  misbehave(what, s->reached);
}

static astra_net_status info(astra_net_info *out, astra_net_error *err) {
#ifdef INFO
  misbehave(INFO, NULL);
#endif
  out->name = "foreign";
  out->version = "1";
  out->capabilities = ASTRA_NET_CAP_MULTI_INSTANCE;
#ifdef PEEK
  out->capabilities |= ASTRA_NET_CAP_PEEK;
#endif
  out->resolution_ps = 1;
  out->max_in_flight = INT64_MAX;
  out->traffic_classes = 1;
  out->abi_version = 1001;
  return 0;
}

static astra_net_status create(const astra_net_config *config, const astra_net_host *host,
                               astra_net_sim **out, astra_net_error *err) {
  astra_net_sim *s = calloc(1, sizeof *s);
  size_t i;
  for (i = 0; i < config->option_count; i++) {
    const char *key = config->options[i].key, *value = config->options[i].value;
    if (!strcmp(key, "fault")) snprintf(s->fault, sizeof s->fault, "%s", value);
    if (!strcmp(key, "lie")) snprintf(s->lie, sizeof s->lie, "%s", value);
    if (!strcmp(key, "reached")) snprintf(s->reached, sizeof s->reached, "%s", value);
    if (!strcmp(key, "stats")) s->stats = strdup(value);
  }
  fault(s, "create");
  if (!strcmp(s->fault, "log_create")) host->log(host->context, 20, "said\nerror: forged");
  *out = s;
  return 0;
}

static void destroy(astra_net_sim *s) {
  if (s == NULL) return;
  fault(s, "destroy");
  free(s->stats);
  free(s);
}

static astra_net_status submit(astra_net_sim *s, const astra_net_transfer *items, size_t n,
                               size_t *accepted, astra_net_error *err) {
  fault(s, "submit");
  memcpy(s->waiting + s->count, items, n * sizeof *items);
  s->count += n;
  *accepted = n;
  if (!strcmp(s->lie, "accepted")) *accepted = n + 5;
  return 0;
}

static astra_net_status advance(astra_net_sim *s, int64_t until, int64_t ahead, int64_t *now,
                                uint32_t *stop, astra_net_error *err) {
  int64_t first = INT64_MAX;
  size_t i, kept = 0;
  fault(s, "advance");
  for (i = 0; i < s->count; i++)
    if (s->waiting[i].start_ps + 1000000 < first) first = s->waiting[i].start_ps + 1000000;
  if (first > until || s->count == 0) {
    *stop = s->count == 0 && until == INT64_MAX ? ASTRA_NET_STOP_IDLE : ASTRA_NET_STOP_REACHED;
    if (until != INT64_MAX) s->now = until;
    *now = s->now;
    return 0;
  }
  for (i = 0; i < s->count; i++) {
    astra_net_transfer *t = &s->waiting[i];
    if (t->start_ps + 1000000 == first) {
      astra_net_completion c = {0};
      c.id = t->id;
      c.time_ps = first;
      c.kind = ASTRA_NET_DELIVERED;
      s->done[s->done_count++] = c;
    } else {
      s->waiting[kept++] = *t;
    }
  }
  s->count = kept;
  *now = s->now = first;
  if (!strcmp(s->lie, "id")) s->done[0].id += 77;
  if (!strcmp(s->lie, "past")) s->done[0].time_ps = -5;
  if (!strcmp(s->lie, "kind")) s->done[0].kind = 9;
  if (!strcmp(s->lie, "twice")) s->done[s->done_count++] = s->done[0];
  if (!strcmp(s->lie, "back")) *now = -1;
  if (!strcmp(s->lie, "beyond")) *now = until == INT64_MAX ? INT64_MAX : until + 1;
  *stop = ASTRA_NET_STOP_COMPLETION;
  return 0;
}

static astra_net_status poll_(astra_net_sim *s, astra_net_completion *out, size_t capacity,
                              size_t *count, astra_net_error *err) {
  size_t n = s->done_count < capacity ? s->done_count : capacity;
  fault(s, "poll");
  memcpy(out, s->done, n * sizeof *out);
  memmove(s->done, s->done + n, (s->done_count - n) * sizeof *out);
  s->done_count -= n;
  *count = n;
  if (!strcmp(s->lie, "count")) *count = capacity + 9;
  if (!strcmp(s->lie, "never-dry")) *count = capacity;
  return 0;
}

#ifdef PEEK
static astra_net_status peek(astra_net_sim *s, int64_t *next, astra_net_error *err) {
  int64_t first = INT64_MAX;
  size_t i;
  for (i = 0; i < s->count; i++)
    if (s->waiting[i].start_ps + 1000000 < first) first = s->waiting[i].start_ps + 1000000;
  if (!strcmp(s->lie, "never")) first = INT64_MAX;
  if (!strcmp(s->lie, "late") && first != INT64_MAX) first += 5000000;
  if (!strcmp(s->lie, "still") && first != INT64_MAX) first = s->now;
  *next = first;
  return 0;
}
#endif

static astra_net_status stats(astra_net_sim *s, uint8_t *out, size_t capacity, size_t *needed,
                              astra_net_error *err) {
  const char *text = s->stats ? s->stats : "{}";
  fault(s, "stats");
  if (!strncmp(text, "size ", 5)) {
    *needed = (size_t)strtoull(text + 5, NULL, 0);
    return 0;
  }
  *needed = strlen(text);
  if (out != NULL && capacity >= *needed) memcpy(out, text, *needed);
  return 0;
}

#ifdef DATA
int astra_net_backend_init = 5;
#else
astra_net_status astra_net_backend_init(uint32_t version, astra_net_backend *out,
                                        astra_net_error *err) {
#ifdef INIT
  misbehave(INIT, NULL);
#endif
#ifdef PEEK
  if (version != 1002) return ASTRA_NET_UNSUPPORTED;
  out->abi_version = 1002;
  out->peek = peek;
#else
  if (version != 1001) return ASTRA_NET_UNSUPPORTED;
  out->abi_version = 1001;
#endif
  out->info = info;
  out->create = create;
  out->destroy = destroy;
  out->submit = submit;
  out->advance = advance;
  out->poll = poll_;
  out->stats = stats;
#ifdef ADDRESS
  out->create = (void *)0x41414141;
#endif
  return 0;
}
#endif

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void begin(void) { misbehave(CONSTRUCTOR, NULL); }
#endif
