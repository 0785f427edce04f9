/* SPDX-License-Identifier: MIT
 *
 * astra_net.h: the contract between astra_bridge and a network simulator.
 *
 * A backend is one shared library that exports one symbol, `astra_net_backend_init`.
 * It sees *transfers* (id, start, source, destination, bytes, class) and tells when each
 * arrives; send/receive matching, tags, collectives, compute and memory stay with the host.
 * docs/contract.md explains the rules R1 to R19; `astra-bridge conformance LIB` tests them.
 *
 * C99 and C++11; parsed by cffi as it stands, so no #if inside [cdef.begin] .. [cdef.end]. */
#ifndef ASTRA_NET_H
#define ASTRA_NET_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ASTRA_NET_EXPORT __declspec(dllexport)
#else
#define ASTRA_NET_EXPORT __attribute__((visibility("default")))
#endif

#define ASTRA_NET_TIME_NEVER INT64_MAX /* [ps] */

#ifdef __cplusplus
extern "C" {
#endif

/* [cdef.begin] */
#define ASTRA_NET_VERSION_1_0 1000 /* major*1000 + minor; a minor version only appends */
#define ASTRA_NET_VERSION_1_1 1001
#define ASTRA_NET_VERSION_1_2 1002
#define ASTRA_NET_VERSION_1_3 1003

/* [status.begin]  Each code fixes what the caller may do next. */
typedef int32_t astra_net_status;
#define ASTRA_NET_OK 0          /* outputs defined                                         */
#define ASTRA_NET_UNSUPPORTED 1 /* sim unchanged; capability bit is clear                  */
#define ASTRA_NET_INVALID 2     /* sim unchanged; an argument is wrong (caller's bug)      */
#define ASTRA_NET_BAD_STATE 3   /* sim unchanged; call not allowed in this state           */
#define ASTRA_NET_INTERRUPTED 4 /* sim consistent at now_ps; continue or destroy           */
#define ASTRA_NET_MODEL 5       /* simulated network failed (deadlock, no route); destroy  */
#define ASTRA_NET_INTERNAL 6    /* backend bug or out of resources; destroy only           */
#define ASTRA_NET_FATAL 7       /* process suspect; call nothing more in this library      */
/* [status.end] */

typedef struct astra_net_error { /* caller-owned, zeroed; nothing to free                  */
  uint32_t struct_size;
  int32_t native_code; /* the simulator's own code, or 0                                   */
  int64_t item;        /* offending index in the batch, or -1                              */
  char message[240];   /* UTF-8, NUL-terminated, truncated to fit                          */
} astra_net_error;

struct astra_net_backend;
typedef struct astra_net_host { /* what the host lends; valid until destroy()              */
  uint32_t struct_size, reserved;
  void *context;
  void (*log)(void *context, int32_t level, const char *message); /* 10..40 as Python; or NULL */
  /* 1.2: the table of another backend, by name or path, valid until destroy(); or NULL.
   * Only during create() and load(), on their thread. */
  astra_net_status (*lend)(void *context, const char *name, const struct astra_net_backend **out,
                           astra_net_error *err);
} astra_net_host;

/* [records.begin]  48 and 32 bytes, no padding. */
typedef struct astra_net_transfer {
  int64_t id;             /* host's choice, unique while in flight                         */
  int64_t start_ps;       /* >= now_ps                                                     */
  int64_t bytes;          /* payload, > 0; headers are the model's business                */
  int32_t src, dst;       /* 0 .. endpoints-1, different                                   */
  uint32_t traffic_class; /* 0 .. info.traffic_classes-1                                   */
  uint32_t flags;         /* 0, or 1.3: ASTRA_NET_REDUCE | members << 8                    */
  int64_t reserved;       /* 0, or with ASTRA_NET_REDUCE the number of the reduction, > 0  */
} astra_net_transfer;
#define ASTRA_NET_REDUCE 1    /* 1.3: one of the members of a reduction; with CAP_REDUCTION */
#define ASTRA_NET_DELIVERED 1 /* last byte at dst: exactly one per transfer                */
#define ASTRA_NET_SENT 2      /* src may reuse its buffer: only with ASTRA_NET_CAP_SENT    */
typedef struct astra_net_completion {
  int64_t id;
  int64_t time_ps; /* <= now_ps                                                            */
  uint32_t kind;
  int32_t outcome; /* 0, or ASTRA_NET_MODEL if only this transfer was lost                 */
  int64_t reserved;
} astra_net_completion;
/* [records.end] */

/* [capabilities.begin] */
#define ASTRA_NET_CAP_MULTI_INSTANCE 1 /* several sims per process (ns-3: no)              */
#define ASTRA_NET_CAP_PARALLEL 2       /* different sims on different threads              */
#define ASTRA_NET_CAP_SENT 4           /* reports ASTRA_NET_SENT                           */
#define ASTRA_NET_CAP_INTERRUPT 8      /* interrupt() makes advance() return early         */
#define ASTRA_NET_CAP_SNAPSHOT 16      /* snapshot() copies a sim                          */
#define ASTRA_NET_CAP_LINK_FAULTS 32   /* set_link() works                                 */
#define ASTRA_NET_CAP_CONGESTION 64    /* transfers slow one another                       */
#define ASTRA_NET_CAP_ORDERED 128      /* 1.1: exchange() works                            */
#define ASTRA_NET_CAP_SAVE 256         /* 1.2: save() and load() work                      */
#define ASTRA_NET_CAP_LEVELS 512       /* 1.2: traffic_class is the dimension of a message */
#define ASTRA_NET_CAP_PEEK 1024        /* 1.2: peek() works                                */
#define ASTRA_NET_CAP_REDUCTION 2048   /* 1.3: the network reduces, ASTRA_NET_REDUCE works */
#define ASTRA_NET_CAP_PIECES 4096      /* 1.2: starts of one instant may come in pieces    */
/* [capabilities.end] */
typedef struct astra_net_info { /* constant while the library is loaded                    */
  uint32_t struct_size, abi_version;
  const char *name, *version; /* static strings                                            */
  uint64_t capabilities;      /* unknown bits are ignored                                  */
  int64_t resolution_ps;      /* every time_ps is a multiple                               */
  int64_t max_in_flight;      /* INT64_MAX = unbounded                                     */
  uint32_t traffic_classes, reserved;
} astra_net_info;

/* What create() gets: the physical topology and the backend's own options. */
typedef struct astra_net_link { /* directed; a cable is two                                */
  int32_t src, dst;             /* nodes: 0 .. endpoints-1 are endpoints, the rest switches */
  double bytes_per_second;
  int64_t latency_ps;
  double loss; /* probability that a packet is corrupted, 0..1                             */
} astra_net_link;
typedef struct astra_net_option { /* UTF-8 */
  const char *key, *value;
} astra_net_option;
struct astra_net_part;
typedef struct astra_net_config {
  uint32_t struct_size, reserved;
  int32_t endpoints, nodes;
  const astra_net_link *links;
  size_t link_count;
  const astra_net_option *options;
  size_t option_count;
  const struct astra_net_part *parts; /* 1.2: for a backend that is made of others         */
  size_t part_count;
} astra_net_config;
typedef struct astra_net_part { /* 1.2: what one of these others is created with           */
  const char *backend;          /* what host->lend() takes                                 */
  const astra_net_config *config;
} astra_net_part;

#define ASTRA_NET_STOP_REACHED 1    /* now_ps == until_ps                                  */
#define ASTRA_NET_STOP_COMPLETION 2 /* poll() has records                                  */
#define ASTRA_NET_STOP_IDLE 3       /* until_ps was NEVER and nothing is in flight         */
typedef struct astra_net_sim astra_net_sim;

/* 1.1: what exchange() reads and writes.  See docs/contract.md, "Order inside one instant". */
typedef struct astra_net_exchange {
  uint32_t struct_size, stop; /* out: ASTRA_NET_STOP_*                                     */
  const astra_net_transfer *starts;
  size_t start_count; /* in: transfers that start now, in this order                       */
  int64_t until_ps;   /* in: run only events whose (time, place) is before this pair       */
  int64_t until_place;
  int64_t place;      /* in/out: the next place that nobody has drawn                      */
  int64_t now_ps;     /* in: time of the starts; out: time reached                         */
  int64_t next_ps;    /* out: the backend's next event, or ASTRA_NET_TIME_NEVER            */
  int64_t next_place;
  astra_net_completion *completions; /* in: where to write                                 */
  size_t capacity, completion_count; /* in; out                                            */
} astra_net_exchange;
#define ASTRA_NET_PLACES_PER_TRANSFER 4 /* a transfer owns the places id .. id+3           */

typedef struct astra_net_backend { /* allocated, zeroed and sized by the host              */
  uint32_t struct_size, abi_version;
  /* 1.0 required: NULL is a load error naming the entry */
  astra_net_status (*info)(astra_net_info *out, astra_net_error *err);
  astra_net_status (*create)(const astra_net_config *config, const astra_net_host *host,
                             astra_net_sim **out, astra_net_error *err);
  void (*destroy)(astra_net_sim *sim); /* NULL is allowed                                  */
  astra_net_status (*submit)(astra_net_sim *sim, const astra_net_transfer *items, size_t n,
                             size_t *accepted, astra_net_error *err);
  astra_net_status (*advance)(astra_net_sim *sim, int64_t until_ps, int64_t lookahead_ps,
                              int64_t *now_ps, uint32_t *stop, astra_net_error *err);
  astra_net_status (*poll)(astra_net_sim *sim, astra_net_completion *out, size_t capacity,
                           size_t *count, astra_net_error *err);
  /* 1.0 optional: NULL becomes a stub returning ASTRA_NET_UNSUPPORTED (interrupt: nothing) */
  void (*interrupt)(astra_net_sim *sim); /* the one thread-safe entry                      */
  astra_net_status (*set_link)(astra_net_sim *sim, int32_t link, int64_t at_ps,
                               double bandwidth_scale /* 0 = down */, astra_net_error *err);
  astra_net_status (*stats)(astra_net_sim *sim, uint8_t *out, size_t capacity, size_t *needed,
                            astra_net_error *err); /* UTF-8 JSON; out NULL asks for the size */
  astra_net_status (*snapshot)(astra_net_sim *sim, astra_net_sim **out, astra_net_error *err);
  /* 1.1 optional, appended */
  astra_net_status (*exchange)(astra_net_sim *sim, astra_net_exchange *x, astra_net_error *err);
  /* 1.2 optional, appended: a sim as bytes, for the same library and configuration */
  astra_net_status (*save)(astra_net_sim *sim, uint8_t *out, size_t capacity, size_t *needed,
                           astra_net_error *err); /* out NULL asks for the size            */
  astra_net_status (*load)(const astra_net_config *config, const astra_net_host *host,
                           const uint8_t *data, size_t size, astra_net_sim **out,
                           astra_net_error *err);
  /* No completion comes before this, if nothing more is submitted; TIME_NEVER: none comes. */
  astra_net_status (*peek)(astra_net_sim *sim, int64_t *next_ps, astra_net_error *err);
} astra_net_backend;

/* The only exported symbol is `astra_net_backend_init`, of this type.
 * ASTRA_NET_UNSUPPORTED = unknown version, try an older one. */
typedef astra_net_status astra_net_backend_init_fn(uint32_t version, astra_net_backend *out,
                                                   astra_net_error *err);
/* [cdef.end] */

ASTRA_NET_EXPORT astra_net_status astra_net_backend_init(uint32_t version, astra_net_backend *out,
                                                         astra_net_error *err);

#ifdef __cplusplus
}
#endif
#endif /* ASTRA_NET_H */
