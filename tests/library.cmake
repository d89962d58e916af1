# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What tests and fuzz harnesses share: sequences of operations against a model, allocations that
# fail, repairs that are interrupted.

file(GLOB STRESS_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/stress/*.c)
list(FILTER STRESS_SOURCES EXCLUDE REGEX "/(main|allocations)\\.c$")
add_library(q2_stress STATIC EXCLUDE_FROM_ALL ${STRESS_SOURCES})
target_link_libraries(q2_stress PUBLIC q2_checker q2_core)

# Apart, because the linker has to lead all calls of a program there.
add_library(q2_allocations STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/stress/allocations.c)
target_link_libraries(q2_allocations PUBLIC q2_flags)
target_link_options(q2_allocations INTERFACE
  -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray)

add_library(q2_sweep STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/repair/sweep_files.c)
target_link_libraries(q2_sweep PUBLIC q2_core)

# The model is no aim of a fuzzer: its many small steps would hide those of the product.
if(QCOW2KIT_FUZZ_ENGINE STREQUAL "libfuzzer")
  set_source_files_properties(${STRESS_SOURCES} PROPERTIES
    COMPILE_OPTIONS -fno-sanitize=fuzzer-no-link)
endif()
