// SPDX-License-Identifier: Apache-2.0
// ring_feature.h - what the feature bits that rings and transports reserve are called.
//
// Threads  all: constant.
#pragma once

// The specification's name of reserved feature @bit (VIRTIO 1.3, 6), NULL if it has none.
const char *ring_feature_name(unsigned bit);
