# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis

@T.prim_func(s_tir=True)
def linear(W_level2_stride: T.Buffer(("n_W_level2_stride",), "uint16"), W_level2_indices: T.Buffer(("n_W_level2_indices",), "uint16"), W_level3_taps: T.Buffer(("n_W_level3_taps",), "uint16"), W_data: T.Buffer(("n_W_data",), "float32"), X: T.Buffer((1, 288), "float32"), Y: T.Buffer((1, 192), "float32")):
    n_W_level2_stride = T.int32()
    n_W_level2_indices = T.int32()
    n_W_level3_taps = T.int32()
    n_W_data = T.int32()
    T.func_attr({"tirx.noalias": True})
    # with T.sblock("root"):
    for v in T.parallel(2):
        for v_1 in range(T.min(v % 2 * 8 + 8, 12) - v % 2 * 8):
            with T.sblock("tile"):
                b = T.axis.opaque(1, v // 2)
                m = T.axis.opaque(1, 0)
                p0 = T.axis.opaque(2, v % 2)
                i = T.axis.opaque(2147483647, v_1)
                T.reads(W_level2_stride[0:n_W_level2_stride], W_level2_indices[0:n_W_level2_indices], W_level3_taps[0:n_W_level3_taps], W_data[0:n_W_data], X[0, 0:288], Y[0, 0:192])
                T.writes(Y[0, 0:192])
                buffer = T.sblock_alloc_buffer((16,), scope="local")
                for v_2 in range(16):
                    with T.sblock("init"):
                        v_3 = T.axis.spatial(16, v_2)
                        T.reads()
                        T.writes(buffer[v_3])
                        buffer[v_3] = T.float32(0.0)
                for v_2 in range(16):
                    with T.sblock("finish"):
                        v_3 = T.axis.spatial(16, v_2)
                        T.reads(buffer[v_3])
                        T.writes(Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)])
                        Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)] = buffer[v_3]
        for v_1, v_2 in T.grid(2, 8):
            for v_3 in range(T.Cast("int32", W_level2_stride[v % 2 * 16 + v_1 * 8 + v_2 + 1]) - T.Cast("int32", W_level2_stride[v % 2 * 16 + v_1 * 8 + v_2])):
                with T.sblock("tile_2"):
                    b = T.axis.opaque(1, v // 2)
                    m = T.axis.opaque(1, 0)
                    p0 = T.axis.opaque(2, v % 2)
                    p1 = T.axis.opaque(2, v_1)
                    p2 = T.axis.opaque(8, v_2)
                    p2_1 = T.axis.opaque(2147483647, v_3)
                    T.reads(W_level2_stride[0:n_W_level2_stride], W_level2_indices[0:n_W_level2_indices], W_level3_taps[0:n_W_level3_taps], W_data[0:n_W_data], X[0, 0:288], Y[0, 0:192])
                    T.writes(Y[0, 0:192])
                    buffer = T.sblock_alloc_buffer((16,), scope="local")
                    stride: T.let[T.int32] = T.Cast("int32", W_level2_stride[(p0 * 2 + p1) * 8 + p2])
                    stride_1: T.let[T.int32] = T.Cast("int32", W_level2_stride[(p0 * 2 + p1) * 8 + p2 + 1])
                    indices: T.let[T.int32] = T.Cast("int32", W_level2_indices[stride + p2_1])
                    position: T.let[T.int32] = stride + p2_1
                    for v_4 in range(16):
                        with T.sblock("init_2"):
                            v_5 = T.axis.spatial(16, v_4)
                            T.reads(Y[b, (p0 * 8 + indices) * 16 + (m * 16 + v_5)])
                            T.writes(buffer[v_5])
                            buffer[v_5] = Y[b, (p0 * 8 + indices) * 16 + (m * 16 + v_5)]
                    for v_4 in range(4):
                        with T.sblock("step"):
                            p3 = T.axis.opaque(4, v_4)
                            T.reads(W_level2_stride[0:n_W_level2_stride], W_level2_indices[0:n_W_level2_indices], W_level3_taps[0:n_W_level3_taps], W_data[0:n_W_data], X[0, 0:288], Y[0, 0:192], buffer[0:16])
                            T.writes(Y[0, 0:192], buffer[0:16])
                            taps: T.let[T.int32] = T.Cast("int32", W_level3_taps[p2 * 4 + p3])
                            position_1: T.let[T.int32] = position * 4 + p3
                            with T.sblock("fma_16"):
                                T.reads(W_level2_stride[0:n_W_level2_stride], W_level2_indices[0:n_W_level2_indices], W_level3_taps[0:n_W_level3_taps], W_data[0:n_W_data], X[0, 0:288], Y[0, 0:192], buffer[0:16])
                                T.writes(Y[0, 0:192], buffer[0:16])
                                buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W_data[position_1], 16) * X[b, T.Ramp(p1 * 9 * 16 + taps + m * 16, 1, 16)]
                    for v_4 in range(16):
                        with T.sblock("finish_2"):
                            v_5 = T.axis.spatial(16, v_4)
                            T.reads(buffer[v_5])
                            T.writes(Y[b, (p0 * 8 + indices) * 16 + (m * 16 + v_5)])
                            Y[b, (p0 * 8 + indices) * 16 + (m * 16 + v_5)] = buffer[v_5]
        for v_1 in range(T.min(v % 2 * 8 + 8, 12) - v % 2 * 8):
            with T.sblock("tile_3"):
                b = T.axis.opaque(1, v // 2)
                m = T.axis.opaque(1, 0)
                p0 = T.axis.opaque(2, v % 2)
                i = T.axis.opaque(2147483647, v_1)
                T.reads(W_level2_stride[0:n_W_level2_stride], W_level2_indices[0:n_W_level2_indices], W_level3_taps[0:n_W_level3_taps], W_data[0:n_W_data], X[0, 0:288], Y[0, 0:192])
                T.writes(Y[0, 0:192])
                buffer = T.sblock_alloc_buffer((16,), scope="local")
                for v_2 in range(16):
                    with T.sblock("init_3"):
                        v_3 = T.axis.spatial(16, v_2)
                        T.reads(Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)])
                        T.writes(buffer[v_3])
                        buffer[v_3] = Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)]
                for v_2 in range(16):
                    with T.sblock("finish_3"):
                        v_3 = T.axis.spatial(16, v_2)
                        T.reads(buffer[v_3])
                        T.writes(Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)])
                        Y[b, (p0 * 8 + i) * 16 + (m * 16 + v_3)] = buffer[v_3]
