# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis

@T.prim_func(s_tir=True)
def linear(W_level2_coords: T.Buffer(("n_W_level2_coords",), "uint16"), W_level2_bucket_ptr: T.Buffer(("n_W_level2_bucket_ptr",), "uint16"), W_level2_row_ptr: T.Buffer(("n_W_level2_row_ptr",), "uint16"), W_level2_lengths: T.Buffer(("n_W_level2_lengths",), "uint16"), W_level2_start: T.Buffer(("n_W_level2_start",), "uint16"), W_level3_indices: T.Buffer(("n_W_level3_indices",), "uint16"), W_data: T.Buffer(("n_W_data",), "float32"), X: T.Buffer((1, 960), "float32"), bias: T.Buffer((12,), "float32"), Y: T.Buffer((1, 480), "float32")):
    n_W_level2_coords = T.int32()
    n_W_level2_bucket_ptr = T.int32()
    n_W_level2_row_ptr = T.int32()
    n_W_level2_lengths = T.int32()
    n_W_level2_start = T.int32()
    n_W_level3_indices = T.int32()
    n_W_data = T.int32()
    T.func_attr({"tirx.noalias": True})
    # with T.sblock("root"):
    for v in T.parallel(3):
        for v_1 in range(3):
            for v_2 in range(T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1 + 1]) - T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1])):
                for v_3 in range(T.Cast("int32", W_level2_row_ptr[T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1]) + v_2 + 1]) - T.Cast("int32", W_level2_row_ptr[T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1]) + v_2])):
                    with T.sblock("tile"):
                        b = T.axis.opaque(1, v // 3)
                        m = T.axis.opaque(1, 0)
                        p0 = T.axis.opaque(3, v % 3)
                        p1 = T.axis.opaque(3, v_1)
                        p2 = T.axis.opaque(2147483647, v_2)
                        p2_1 = T.axis.opaque(2147483647, v_3)
                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480])
                        T.writes(Y[0, 0:480])
                        buffer = T.sblock_alloc_buffer((64,), scope="local")
                        bucket_ptr: T.let[T.int32] = T.Cast("int32", W_level2_bucket_ptr[p0 * 3 + p1])
                        bucket_ptr_1: T.let[T.int32] = T.Cast("int32", W_level2_bucket_ptr[p0 * 3 + p1 + 1])
                        row_ptr: T.let[T.int32] = T.Cast("int32", W_level2_row_ptr[bucket_ptr + p2])
                        row_ptr_1: T.let[T.int32] = T.Cast("int32", W_level2_row_ptr[bucket_ptr + p2 + 1])
                        lengths: T.let[T.int32] = T.Cast("int32", W_level2_lengths[bucket_ptr + p2])
                        coords: T.let[T.int32] = T.Cast("int32", W_level2_coords[row_ptr + p2_1])
                        start: T.let[T.int32] = T.Cast("int32", W_level2_start[bucket_ptr + p2])
                        position: T.let[T.int32] = row_ptr + p2_1
                        coords_1: T.let[T.int32] = T.Cast("int32", W_level2_coords[T.min(position + 2, 17)])
                        p2_ahead: T.let[T.int32] = coords_1
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead * 2) * 40 + m * 32]), 0, 3, 1)
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead * 2) * 40 + m * 32 + 16]), 0, 3, 1)
                        coords_2: T.let[T.int32] = T.Cast("int32", W_level2_coords[T.min(position + 2, 17)])
                        p2_ahead_1: T.let[T.int32] = coords_2
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead_1 * 2 + 1) * 40 + m * 32]), 0, 3, 1)
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead_1 * 2 + 1) * 40 + m * 32 + 16]), 0, 3, 1)
                        for v_4, v_5 in T.grid(2, 32):
                            with T.sblock("init"):
                                p4, v_6 = T.axis.remap("SS", [v_4, v_5])
                                T.reads(Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (m * 32 + v_6)])
                                T.writes(buffer[p4 * 32 + v_6])
                                buffer[p4 * 32 + v_6] = T.if_then_else(p1 == 0, T.float32(0.0), Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (m * 32 + v_6)])
                        ahead: T.let[T.int32] = start + p2_1 * lengths + 2048
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead]), 0, 2, 1)
                        if lengths > 32:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 32]), 0, 2, 1)
                        if lengths > 64:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 64]), 0, 2, 1)
                        if lengths > 96:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 96]), 0, 2, 1)
                        ahead_1: T.let[T.int32] = (start + p2_1 * lengths) * 2 + 1024
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1]), 0, 2, 1)
                        if lengths * 2 > 16:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 16]), 0, 2, 1)
                        if lengths * 2 > 32:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 32]), 0, 2, 1)
                        if lengths * 2 > 48:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 48]), 0, 2, 1)
                        with T.sblock("apart"):
                            T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                            T.writes(Y[0, 0:480], buffer[0:64])
                            buffer_1 = T.sblock_alloc_buffer((64,), scope="local")
                            buffer_1[0:16] = T.Broadcast(T.float32(0.0), 16)
                            buffer_1[16:32] = T.Broadcast(T.float32(0.0), 16)
                            buffer_1[32:48] = T.Broadcast(T.float32(0.0), 16)
                            buffer_1[48:64] = T.Broadcast(T.float32(0.0), 16)
                            for v_4 in range(lengths // 4):
                                with T.sblock("step"):
                                    quad = T.axis.opaque(2147483647, v_4)
                                    T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                                    T.writes(Y[0, 0:480], buffer[0:64])
                                    position_1: T.let[T.int32] = start + p2_1 * lengths + quad * 4
                                    quad_1: T.let[T.uint64] = T.reinterpret("uint64", W_level3_indices[T.Ramp(position_1, 1, 4)])
                                    coordinate: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(0) & T.uint64(65535))
                                    with T.sblock("fma_16"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                                        T.writes(Y[0, 0:480], buffer[0:64])
                                        buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[position_1 * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32, 1, 16)]
                                        buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[position_1 * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32 + 16, 1, 16)]
                                        buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[position_1 * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32, 1, 16)]
                                        buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[position_1 * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32 + 16, 1, 16)]
                                    coordinate_1: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(16) & T.uint64(65535))
                                    with T.sblock("fma_16_2"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer_1[0:64])
                                        T.writes(Y[0, 0:480], buffer_1[0:64])
                                        buffer_1[0:16] = buffer_1[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[(position_1 + 1) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + m * 32, 1, 16)]
                                        buffer_1[16:32] = buffer_1[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[(position_1 + 1) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + m * 32 + 16, 1, 16)]
                                        buffer_1[32:48] = buffer_1[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[(position_1 + 1) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + m * 32, 1, 16)]
                                        buffer_1[48:64] = buffer_1[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[(position_1 + 1) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + m * 32 + 16, 1, 16)]
                                    coordinate_2: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(32) & T.uint64(65535))
                                    with T.sblock("fma_16_3"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                                        T.writes(Y[0, 0:480], buffer[0:64])
                                        buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[(position_1 + 2) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + m * 32, 1, 16)]
                                        buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[(position_1 + 2) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + m * 32 + 16, 1, 16)]
                                        buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[(position_1 + 2) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + m * 32, 1, 16)]
                                        buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[(position_1 + 2) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + m * 32 + 16, 1, 16)]
                                    coordinate_3: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(48) & T.uint64(65535))
                                    with T.sblock("fma_16_4"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer_1[0:64])
                                        T.writes(Y[0, 0:480], buffer_1[0:64])
                                        buffer_1[0:16] = buffer_1[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[(position_1 + 3) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + m * 32, 1, 16)]
                                        buffer_1[16:32] = buffer_1[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[(position_1 + 3) * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + m * 32 + 16, 1, 16)]
                                        buffer_1[32:48] = buffer_1[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[(position_1 + 3) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + m * 32, 1, 16)]
                                        buffer_1[48:64] = buffer_1[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[(position_1 + 3) * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + m * 32 + 16, 1, 16)]
                            buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + buffer_1[T.Ramp(0, 1, 16)]
                            buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + buffer_1[T.Ramp(16, 1, 16)]
                            buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + buffer_1[T.Ramp(32, 1, 16)]
                            buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + buffer_1[T.Ramp(48, 1, 16)]
                        for v_4 in range(lengths % 4):
                            with T.sblock("step_2"):
                                rest = T.axis.opaque(2147483647, v_4)
                                T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                                T.writes(Y[0, 0:480], buffer[0:64])
                                position_1: T.let[T.int32] = start + p2_1 * lengths + (lengths // 4 * 4 + rest)
                                coordinate: T.let[T.int32] = T.Cast("int32", W_level3_indices[position_1])
                                with T.sblock("fma_16_5"):
                                    T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:64])
                                    T.writes(Y[0, 0:480], buffer[0:64])
                                    buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[position_1 * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32, 1, 16)]
                                    buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W_data[position_1 * 2], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32 + 16, 1, 16)]
                                    buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W_data[position_1 * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32, 1, 16)]
                                    buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W_data[position_1 * 2 + 1], 16) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + m * 32 + 16, 1, 16)]
                        for v_4, v_5 in T.grid(2, 32):
                            with T.sblock("finish"):
                                p4, v_6 = T.axis.remap("SS", [v_4, v_5])
                                T.reads(buffer[p4 * 32 + v_6], bias[p0 * 4 + coords * 2 + p4])
                                T.writes(Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (m * 32 + v_6)])
                                Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (m * 32 + v_6)] = T.if_then_else(p1 == 2, T.max(T.float32(0.0), buffer[p4 * 32 + v_6] + bias[p0 * 4 + coords * 2 + p4]), buffer[p4 * 32 + v_6])
    for v in T.parallel(3):
        for v_1 in range(3):
            for v_2 in range(T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1 + 1]) - T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1])):
                for v_3 in range(T.Cast("int32", W_level2_row_ptr[T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1]) + v_2 + 1]) - T.Cast("int32", W_level2_row_ptr[T.Cast("int32", W_level2_bucket_ptr[v % 3 * 3 + v_1]) + v_2])):
                    with T.sblock("tile_2"):
                        b = T.axis.opaque(1, v // 3)
                        m = T.axis.opaque(1, 0)
                        p0 = T.axis.opaque(3, v % 3)
                        p1 = T.axis.opaque(3, v_1)
                        p2 = T.axis.opaque(2147483647, v_2)
                        p2_1 = T.axis.opaque(2147483647, v_3)
                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480])
                        T.writes(Y[0, 0:480])
                        buffer = T.sblock_alloc_buffer((16,), scope="local")
                        bucket_ptr: T.let[T.int32] = T.Cast("int32", W_level2_bucket_ptr[p0 * 3 + p1])
                        bucket_ptr_1: T.let[T.int32] = T.Cast("int32", W_level2_bucket_ptr[p0 * 3 + p1 + 1])
                        row_ptr: T.let[T.int32] = T.Cast("int32", W_level2_row_ptr[bucket_ptr + p2])
                        row_ptr_1: T.let[T.int32] = T.Cast("int32", W_level2_row_ptr[bucket_ptr + p2 + 1])
                        lengths: T.let[T.int32] = T.Cast("int32", W_level2_lengths[bucket_ptr + p2])
                        coords: T.let[T.int32] = T.Cast("int32", W_level2_coords[row_ptr + p2_1])
                        start: T.let[T.int32] = T.Cast("int32", W_level2_start[bucket_ptr + p2])
                        position: T.let[T.int32] = row_ptr + p2_1
                        coords_1: T.let[T.int32] = T.Cast("int32", W_level2_coords[T.min(position + 2, 17)])
                        p2_ahead: T.let[T.int32] = coords_1
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead * 2) * 40 + (32 + m * 8)]), 0, 3, 1)
                        coords_2: T.let[T.int32] = T.Cast("int32", W_level2_coords[T.min(position + 2, 17)])
                        p2_ahead_1: T.let[T.int32] = coords_2
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(Y[b, (p0 * 4 + p2_ahead_1 * 2 + 1) * 40 + (32 + m * 8)]), 0, 3, 1)
                        for v_4, v_5 in T.grid(2, 8):
                            with T.sblock("init_2"):
                                p4, v_6 = T.axis.remap("SS", [v_4, v_5])
                                T.reads(Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (32 + m * 8 + v_6)])
                                T.writes(buffer[p4 * 8 + v_6])
                                buffer[p4 * 8 + v_6] = T.if_then_else(p1 == 0, T.float32(0.0), Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (32 + m * 8 + v_6)])
                        ahead: T.let[T.int32] = start + p2_1 * lengths + 2048
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead]), 0, 2, 1)
                        if lengths > 32:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 32]), 0, 2, 1)
                        if lengths > 64:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 64]), 0, 2, 1)
                        if lengths > 96:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_level3_indices[ahead + 96]), 0, 2, 1)
                        ahead_1: T.let[T.int32] = (start + p2_1 * lengths) * 2 + 1024
                        T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1]), 0, 2, 1)
                        if lengths * 2 > 16:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 16]), 0, 2, 1)
                        if lengths * 2 > 32:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 32]), 0, 2, 1)
                        if lengths * 2 > 48:
                            T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(W_data[ahead_1 + 48]), 0, 2, 1)
                        with T.sblock("apart_2"):
                            T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:16])
                            T.writes(Y[0, 0:480], buffer[0:16])
                            buffer_1 = T.sblock_alloc_buffer((16,), scope="local")
                            buffer_2 = T.sblock_alloc_buffer((16,), scope="local")
                            buffer_3 = T.sblock_alloc_buffer((16,), scope="local")
                            buffer_1[0:8] = T.Broadcast(T.float32(0.0), 8)
                            buffer_1[8:16] = T.Broadcast(T.float32(0.0), 8)
                            buffer_2[0:8] = T.Broadcast(T.float32(0.0), 8)
                            buffer_2[8:16] = T.Broadcast(T.float32(0.0), 8)
                            buffer_3[0:8] = T.Broadcast(T.float32(0.0), 8)
                            buffer_3[8:16] = T.Broadcast(T.float32(0.0), 8)
                            for v_4 in range(lengths // 4):
                                with T.sblock("step_3"):
                                    quad = T.axis.opaque(2147483647, v_4)
                                    T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:16])
                                    T.writes(Y[0, 0:480], buffer[0:16])
                                    position_1: T.let[T.int32] = start + p2_1 * lengths + quad * 4
                                    quad_1: T.let[T.uint64] = T.reinterpret("uint64", W_level3_indices[T.Ramp(position_1, 1, 4)])
                                    coordinate: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(0) & T.uint64(65535))
                                    with T.sblock("fma_8"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:16])
                                        T.writes(Y[0, 0:480], buffer[0:16])
                                        buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + T.Broadcast(W_data[position_1 * 2], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + (32 + m * 8), 1, 8)]
                                        buffer[8:16] = buffer[T.Ramp(8, 1, 8)] + T.Broadcast(W_data[position_1 * 2 + 1], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + (32 + m * 8), 1, 8)]
                                    coordinate_1: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(16) & T.uint64(65535))
                                    with T.sblock("fma_8_2"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer_1[0:16])
                                        T.writes(Y[0, 0:480], buffer_1[0:16])
                                        buffer_1[0:8] = buffer_1[T.Ramp(0, 1, 8)] + T.Broadcast(W_data[(position_1 + 1) * 2], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + (32 + m * 8), 1, 8)]
                                        buffer_1[8:16] = buffer_1[T.Ramp(8, 1, 8)] + T.Broadcast(W_data[(position_1 + 1) * 2 + 1], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_1 + (32 + m * 8), 1, 8)]
                                    coordinate_2: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(32) & T.uint64(65535))
                                    with T.sblock("fma_8_3"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer_2[0:16])
                                        T.writes(Y[0, 0:480], buffer_2[0:16])
                                        buffer_2[0:8] = buffer_2[T.Ramp(0, 1, 8)] + T.Broadcast(W_data[(position_1 + 2) * 2], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + (32 + m * 8), 1, 8)]
                                        buffer_2[8:16] = buffer_2[T.Ramp(8, 1, 8)] + T.Broadcast(W_data[(position_1 + 2) * 2 + 1], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_2 + (32 + m * 8), 1, 8)]
                                    coordinate_3: T.let[T.int32] = T.Cast("int32", quad_1 >> T.uint64(48) & T.uint64(65535))
                                    with T.sblock("fma_8_4"):
                                        T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer_3[0:16])
                                        T.writes(Y[0, 0:480], buffer_3[0:16])
                                        buffer_3[0:8] = buffer_3[T.Ramp(0, 1, 8)] + T.Broadcast(W_data[(position_1 + 3) * 2], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + (32 + m * 8), 1, 8)]
                                        buffer_3[8:16] = buffer_3[T.Ramp(8, 1, 8)] + T.Broadcast(W_data[(position_1 + 3) * 2 + 1], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate_3 + (32 + m * 8), 1, 8)]
                            buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + buffer_1[T.Ramp(0, 1, 8)]
                            buffer[8:16] = buffer[T.Ramp(8, 1, 8)] + buffer_1[T.Ramp(8, 1, 8)]
                            buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + buffer_2[T.Ramp(0, 1, 8)]
                            buffer[8:16] = buffer[T.Ramp(8, 1, 8)] + buffer_2[T.Ramp(8, 1, 8)]
                            buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + buffer_3[T.Ramp(0, 1, 8)]
                            buffer[8:16] = buffer[T.Ramp(8, 1, 8)] + buffer_3[T.Ramp(8, 1, 8)]
                        for v_4 in range(lengths % 4):
                            with T.sblock("step_4"):
                                rest = T.axis.opaque(2147483647, v_4)
                                T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:16])
                                T.writes(Y[0, 0:480], buffer[0:16])
                                position_1: T.let[T.int32] = start + p2_1 * lengths + (lengths // 4 * 4 + rest)
                                coordinate: T.let[T.int32] = T.Cast("int32", W_level3_indices[position_1])
                                with T.sblock("fma_8_5"):
                                    T.reads(W_level2_coords[0:n_W_level2_coords], W_level2_bucket_ptr[0:n_W_level2_bucket_ptr], W_level2_row_ptr[0:n_W_level2_row_ptr], W_level2_lengths[0:n_W_level2_lengths], W_level2_start[0:n_W_level2_start], W_level3_indices[0:n_W_level3_indices], W_data[0:n_W_data], X[0, 0:960], bias[0:12], Y[0, 0:480], buffer[0:16])
                                    T.writes(Y[0, 0:480], buffer[0:16])
                                    buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + T.Broadcast(W_data[position_1 * 2], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + (32 + m * 8), 1, 8)]
                                    buffer[8:16] = buffer[T.Ramp(8, 1, 8)] + T.Broadcast(W_data[position_1 * 2 + 1], 8) * X[b, T.Ramp(p1 * 8 * 40 + coordinate + (32 + m * 8), 1, 8)]
                        for v_4, v_5 in T.grid(2, 8):
                            with T.sblock("finish_2"):
                                p4, v_6 = T.axis.remap("SS", [v_4, v_5])
                                T.reads(buffer[p4 * 8 + v_6], bias[p0 * 4 + coords * 2 + p4])
                                T.writes(Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (32 + m * 8 + v_6)])
                                Y[b, (p0 * 4 + coords * 2 + p4) * 40 + (32 + m * 8 + v_6)] = T.if_then_else(p1 == 2, T.max(T.float32(0.0), buffer[p4 * 8 + v_6] + bias[p0 * 4 + coords * 2 + p4]), buffer[p4 * 8 + v_6])
