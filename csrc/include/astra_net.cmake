# SPDX-License-Identifier: MIT
# astra_net_backend(NAME SOURCES...): a library astra_net_NAME that meets the build rules of the
# contract: strict warnings, and no exported symbol but astra_net_backend_init.
set(ASTRA_NET_INCLUDE "${CMAKE_CURRENT_LIST_DIR}")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

function(astra_net_backend name)
  astra_net_library(astra_net_${name} "${ASTRA_NET_INCLUDE}/astra_net.map" astra_net_backend_init
    ${ARGN})
endfunction()

# A library that is built by the same rules; it exports the symbols of a list, which a map lists, too.
function(astra_net_library target map exports)
  add_library(${target} MODULE ${ARGN})
  target_include_directories(${target} PRIVATE "${ASTRA_NET_INCLUDE}")
  set_target_properties(${target} PROPERTIES
    PREFIX lib SUFFIX .so
    C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF C_VISIBILITY_PRESET hidden
    CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic $<$<BOOL:${ASTRA_WERROR}>:-Werror> -O3)
  # Hidden visibility is not enough: instantiations of the C++ standard library are exported
  # whatever the flags, and one of them that another library has too may be bound to that one.
  if(APPLE)
    foreach(symbol IN LISTS exports)
      target_link_options(${target} PRIVATE -Wl,-exported_symbol,_${symbol})
    endforeach()
  else()
    target_link_options(${target} PRIVATE "-Wl,--version-script=${map}")
  endif()
endfunction()
