#pragma once

#include "cuda_api.h"
