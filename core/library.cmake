# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What others can embed: the core, the checker and the repair as one library, static and shared, with the
# headers that its users need and a pkg-config file. Headers keep their paths, so that
# `#include "checker/check.h"` is the same line inside and outside.

set(QCOW2KIT_OBJECTS $<TARGET_OBJECTS:q2_core> $<TARGET_OBJECTS:q2_checker>
  $<TARGET_OBJECTS:q2_repair>)
foreach(kind SHARED STATIC)
  string(TOLOWER qcow2kit_${kind} target)
  add_library(${target} ${kind} ${QCOW2KIT_OBJECTS})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME qcow2kit LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
  target_link_libraries(${target} PRIVATE q2_flags Threads::Threads PkgConfig::ZSTD PkgConfig::DEFLATE
    OpenSSL::Crypto PkgConfig::JSONC)
endforeach()
install(TARGETS qcow2kit_shared qcow2kit_static)

set(QCOW2KIT_HEADERS
  core/base/budget.h core/base/checked.h core/base/cleanup.h core/base/endian.h core/base/error.h
  core/codec/cipher.h core/codec/codec.h core/codec/keys.h core/codec/secret.h
  core/io/file.h core/io/memory.h core/io/overlay.h core/io/posix.h
  core/image/disk.h core/image/image.h
  checker/catalogue.h checker/check.h checker/companion.h checker/finding.h checker/report.h
  repair/repair.h repair/plan.h repair/actions.def repair/plan_file.h repair/report.h
  repair/journal.h repair/apply.h repair/salvage.h)
file(GLOB QCOW2KIT_FORMAT_HEADERS RELATIVE ${PROJECT_SOURCE_DIR} CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/core/format/*.h ${PROJECT_SOURCE_DIR}/core/format/*.def)
foreach(header ${QCOW2KIT_HEADERS} ${QCOW2KIT_FORMAT_HEADERS})
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${PROJECT_SOURCE_DIR}/${header}
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/qcow2kit/${folder})
endforeach()

# The file finds its prefix from its own place, so that the tree can be moved as a whole.
file(RELATIVE_PATH QCOW2KIT_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/core/qcow2kit.pc.in ${PROJECT_BINARY_DIR}/qcow2kit.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/qcow2kit.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
