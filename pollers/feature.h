// SPDX-License-Identifier: Apache-2.0
// feature.h - what negotiated features are called, for reports.
//
// Threads  all: constant.
#pragma once

#include <stdint.h>

// The name of feature @bit of a device with @virtio_id, without its prefix: "EVENT_IDX". NULL
// if it has none.
const char *feature_name(uint16_t virtio_id, unsigned bit);

// The name of a vhost-user protocol feature, likewise.
const char *feature_protocol_name(unsigned bit);
