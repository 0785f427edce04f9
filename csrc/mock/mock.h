/* SPDX-License-Identifier: MIT
 * The reference backend (mock.c), as the fault injector (fault.c) sees it. */
#ifndef ASTRA_NET_MOCK_H
#define ASTRA_NET_MOCK_H

#include "astra_net.h"

/* Ways to be wrong that must sit inside the model. */
#define MOCK_BEND_SUBMISSION 1u /* starts of one instant go by submission, not by id */
#define MOCK_BEND_NARROW 2u     /* sizes pass through int32 */
#define MOCK_BEND_DOUBLE 4u     /* times pass through double */
#define MOCK_BEND_STUCK 8u      /* the first transfer never ends, and nobody says so */

extern const astra_net_info mock_info;
void mock_table(uint32_t version, astra_net_backend *out);
void mock_bend(astra_net_sim *sim, uint32_t bends);

/* Write a message ("call: ...") within err->struct_size; returns status. */
astra_net_status mock_fail(astra_net_error *err, astra_net_status status, int64_t item,
                           const char *format, ...);

#endif
