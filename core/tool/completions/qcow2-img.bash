# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
