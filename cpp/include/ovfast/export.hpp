#pragma once

// Marks what libovfast.so exports; everything else is compiled with hidden visibility.
#define OVFAST_API __attribute__((visibility("default")))
