# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What harnesses (the list HARNESSES) begin with: seeds that are made, inputs that were kept, and the
# tests that run them.

# The seeds of fuzz-NAME are made in seeds/NAME of the build folder, by the target fuzz-seeds: those
# of what is not an image by the program that seeds/NAME.c becomes.
if(QCOW2KIT_SEEDS)
  add_custom_target(fuzz-seeds ALL)
else()
  add_custom_target(fuzz-seeds)
endif()
set(SEEDS ${CMAKE_CURRENT_BINARY_DIR}/seeds)
foreach(name ${HARNESSES})
  file(MAKE_DIRECTORY ${SEEDS}/${name})
endforeach()
add_library(q2_seed OBJECT engine/seed.c)
target_link_libraries(q2_seed PUBLIC q2_fuzz)
file(GLOB GENERATORS CONFIGURE_DEPENDS seeds/*.c)
foreach(source ${GENERATORS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(seeds-${name} ${source})
  target_link_libraries(seeds-${name} PRIVATE q2_seed)
  add_custom_command(OUTPUT ${SEEDS}/${name}.made
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${SEEDS}/${name}
    COMMAND seeds-${name} ${SEEDS}/${name}
    COMMAND ${CMAKE_COMMAND} -E touch ${SEEDS}/${name}.made
    DEPENDS seeds-${name})
  add_custom_target(fuzz-seeds-${name} DEPENDS ${SEEDS}/${name}.made)
  add_dependencies(fuzz-seeds fuzz-seeds-${name})
endforeach()

# What campaigns have kept for fuzz-NAME (fuzz/campaign) is unpacked to kept/NAME, by the same target.
set(KEPT ${CMAKE_CURRENT_BINARY_DIR}/kept)
file(GLOB ARCHIVES CONFIGURE_DEPENDS corpora/*.tar.xz)
foreach(name ${HARNESSES})
  set(archive ${CMAKE_CURRENT_SOURCE_DIR}/corpora/${name}.tar.xz)
  if(EXISTS ${archive})
    add_custom_command(OUTPUT ${KEPT}/${name}.made
      COMMAND ${CMAKE_COMMAND} -E rm -rf ${KEPT}/${name}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${KEPT}/${name}
      COMMAND ${CMAKE_COMMAND} -E chdir ${KEPT}/${name} ${CMAKE_COMMAND} -E tar xf ${archive}
      COMMAND ${CMAKE_COMMAND} -E touch ${KEPT}/${name}.made
      DEPENDS ${archive})
    add_custom_target(fuzz-kept-${name} DEPENDS ${KEPT}/${name}.made)
    add_dependencies(fuzz-seeds fuzz-kept-${name})
  endif()
endforeach()

# Those of whole images all come from recipes.
file(GLOB SEED_SOURCES CONFIGURE_DEPENDS images/*.c)
add_executable(seeds-images ${SEED_SOURCES})
target_link_libraries(seeds-images PRIVATE q2_recipe q2_fuzz)
file(GLOB SEED_RECIPES CONFIGURE_DEPENDS images/*.recipe ${PROJECT_SOURCE_DIR}/corpus/*/*.recipe
  ${PROJECT_SOURCE_DIR}/tests/cases/*/recipe)
# What stands beside them.
file(GLOB SEED_OPTIONS CONFIGURE_DEPENDS images/*.options ${PROJECT_SOURCE_DIR}/tests/cases/*/options)
add_custom_command(OUTPUT ${SEEDS}/images.made
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${SEEDS}/check ${SEEDS}/check-slow ${SEEDS}/repair
    ${SEEDS}/report ${SEEDS}/salvage ${SEEDS}/writes
  COMMAND seeds-images ${SEEDS} ${SEED_RECIPES}
  COMMAND ${CMAKE_COMMAND} -E touch ${SEEDS}/images.made
  DEPENDS seeds-images ${SEED_RECIPES} ${SEED_OPTIONS})
add_custom_target(fuzz-seeds-images DEPENDS ${SEEDS}/images.made)
add_dependencies(fuzz-seeds fuzz-seeds-images)

# All that fuzz-NAME begins with.
foreach(name ${HARNESSES})
  add_custom_target(fuzz-inputs-${name})
  if(TARGET fuzz-seeds-${name})
    add_dependencies(fuzz-inputs-${name} fuzz-seeds-${name})
  else()
    add_dependencies(fuzz-inputs-${name} fuzz-seeds-images)
  endif()
  if(TARGET fuzz-kept-${name})
    add_dependencies(fuzz-inputs-${name} fuzz-kept-${name})
  endif()
endforeach()

# Each harness runs its seeds, kept inputs and regressions, and then as many changed ones as take a
# second or two with sanitizers.
set(RUNS_DEFAULT 500)
foreach(name header refcount bitmap luks)
  set(RUNS_${name} 20000)
endforeach()
foreach(name entries snapshot compressed plan journal secret)
  set(RUNS_${name} 5000)
endforeach()
set(RUNS_repair 200)
set(RUNS_report 200)
set(RUNS_salvage 200)
set(RUNS_chain 200)
set(RUNS_keys 50)
if(BUILD_TESTING AND QCOW2KIT_FUZZ_ENGINE STREQUAL "replay")
  foreach(name ${HARNESSES})
    set(runs ${RUNS_DEFAULT})
    if(DEFINED RUNS_${name})
      set(runs ${RUNS_${name}})
    endif()
    set(inputs ${SEEDS}/${name})
    if(name STREQUAL "check")
      list(APPEND inputs ${SEEDS}/check-slow)
    endif()
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/corpora/${name}.tar.xz)
      list(APPEND inputs ${KEPT}/${name})
    endif()
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/regressions/${name})
      list(APPEND inputs ${CMAKE_CURRENT_SOURCE_DIR}/regressions/${name})
    endif()
    add_test(NAME fuzz/${name} COMMAND fuzz-${name} --runs ${runs} ${inputs})
    set_tests_properties(fuzz/${name} PROPERTIES LABELS fuzz)
  endforeach()
endif()
