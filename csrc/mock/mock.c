/* SPDX-License-Identifier: MIT */
#include "astra_net.h"
ASTRA_NET_EXPORT astra_net_status astra_net_backend_init(uint32_t version, astra_net_backend *out,
                                                         astra_net_error *err) {
  (void)version, (void)out, (void)err;
  return ASTRA_NET_UNSUPPORTED;
}
