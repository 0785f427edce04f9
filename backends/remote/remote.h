/* SPDX-License-Identifier: MIT
 *
 * remote.h: the two ends of a connection to a backend elsewhere; docs/remote.md. */
#ifndef ASTRA_REMOTE_H
#define ASTRA_REMOTE_H

#include "astra_net.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The table of the backend behind an address ("tcp://HOST:PORT", "unix:///PATH"), as
 * astra_net_backend_init gives that of a library.  `served` is the name that the server has for it.
 * Each simulation has a connection of its own. */
ASTRA_NET_EXPORT astra_net_status astra_remote_open(const char *address, const char *token,
                                                    uint32_t version, astra_net_backend *out,
                                                    char *served, size_t served_size,
                                                    astra_net_error *err);

/* Answers one connection, whose hello was good, until it is closed: calls `table` for it, and takes
 * over the descriptor.  Where the client has gone and a call does not return within `patience_ms`
 * after it was interrupted, the process ends; 0 is without limit. */
ASTRA_NET_EXPORT astra_net_status astra_remote_serve(int32_t descriptor,
                                                     const astra_net_backend *table,
                                                     const astra_net_host *host,
                                                     int64_t patience_ms, astra_net_error *err);

#ifdef __cplusplus
}
#endif
#endif /* ASTRA_REMOTE_H */
