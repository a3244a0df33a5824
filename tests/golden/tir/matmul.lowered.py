# from tvm.script import tirx as T
# from tvm.tirx.layout import Axis

@T.prim_func(s_tir=True)
def matmul(W: T.Buffer(("batch", 16, 8), "float32"), X: T.Buffer((batch, 16, "columns"), "float32"), Y: T.Buffer((batch, 8, columns), "float32")):
    batch = T.int32()
    columns = T.int32()
    T.func_attr({"tirx.noalias": True})
    # with T.sblock("root"):
    for v in T.parallel(batch):
        for v_1 in range(columns // 32):
            with T.sblock("tile"):
                b = T.axis.opaque(2147483647, v)
                m = T.axis.opaque(2147483647, v_1)
                i = T.axis.opaque(1, 0)
                T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns])
                T.writes(Y[0:batch, 0:8, 0:columns])
                buffer = T.sblock_alloc_buffer((256,), scope="local")
                for v_2, v_3 in T.grid(8, 32):
                    with T.sblock("init"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads()
                        T.writes(buffer[r * 32 + v_4])
                        buffer[r * 32 + v_4] = T.float32(0.0)
                for v_2 in range(16):
                    with T.sblock("step"):
                        k = T.axis.opaque(16, v_2)
                        T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:256])
                        T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:256])
                        with T.sblock("fma_16"):
                            T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:256])
                            T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:256])
                            buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W[b, k, i * 8], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W[b, k, i * 8], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 1], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 1], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[64:80] = buffer[T.Ramp(64, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 2], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[80:96] = buffer[T.Ramp(80, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 2], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[96:112] = buffer[T.Ramp(96, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 3], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[112:128] = buffer[T.Ramp(112, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 3], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[128:144] = buffer[T.Ramp(128, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 4], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[144:160] = buffer[T.Ramp(144, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 4], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[160:176] = buffer[T.Ramp(160, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 5], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[176:192] = buffer[T.Ramp(176, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 5], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[192:208] = buffer[T.Ramp(192, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 6], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[208:224] = buffer[T.Ramp(208, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 6], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                            buffer[224:240] = buffer[T.Ramp(224, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 7], 16) * X[b, k, T.Ramp(m * 32, 1, 16)]
                            buffer[240:256] = buffer[T.Ramp(240, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 7], 16) * X[b, k, T.Ramp(m * 32 + 16, 1, 16)]
                for v_2, v_3 in T.grid(8, 32):
                    with T.sblock("finish"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads(buffer[r * 32 + v_4])
                        T.writes(Y[b, i * 8 + r, m * 32 + v_4])
                        Y[b, i * 8 + r, m * 32 + v_4] = buffer[r * 32 + v_4]
    for v in T.parallel(batch):
        for v_1 in range(columns // 16 - columns // 32 * 2):
            with T.sblock("tile_2"):
                b = T.axis.opaque(2147483647, v)
                m = T.axis.opaque(2147483647, v_1)
                i = T.axis.opaque(1, 0)
                T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns])
                T.writes(Y[0:batch, 0:8, 0:columns])
                buffer = T.sblock_alloc_buffer((128,), scope="local")
                for v_2, v_3 in T.grid(8, 16):
                    with T.sblock("init_2"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads()
                        T.writes(buffer[r * 16 + v_4])
                        buffer[r * 16 + v_4] = T.float32(0.0)
                for v_2 in range(16):
                    with T.sblock("step_2"):
                        k = T.axis.opaque(16, v_2)
                        T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:128])
                        T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:128])
                        with T.sblock("fma_16_2"):
                            T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:128])
                            T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:128])
                            buffer[0:16] = buffer[T.Ramp(0, 1, 16)] + T.Broadcast(W[b, k, i * 8], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[16:32] = buffer[T.Ramp(16, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 1], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[32:48] = buffer[T.Ramp(32, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 2], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[48:64] = buffer[T.Ramp(48, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 3], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[64:80] = buffer[T.Ramp(64, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 4], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[80:96] = buffer[T.Ramp(80, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 5], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[96:112] = buffer[T.Ramp(96, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 6], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                            buffer[112:128] = buffer[T.Ramp(112, 1, 16)] + T.Broadcast(W[b, k, i * 8 + 7], 16) * X[b, k, T.Ramp(columns // 32 * 32 + m * 16, 1, 16)]
                for v_2, v_3 in T.grid(8, 16):
                    with T.sblock("finish_2"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads(buffer[r * 16 + v_4])
                        T.writes(Y[b, i * 8 + r, columns // 32 * 32 + m * 16 + v_4])
                        Y[b, i * 8 + r, columns // 32 * 32 + m * 16 + v_4] = buffer[r * 16 + v_4]
    for v in T.parallel(batch):
        for v_1 in range(columns // 4 - columns // 16 * 4):
            with T.sblock("tile_3"):
                b = T.axis.opaque(2147483647, v)
                m = T.axis.opaque(2147483647, v_1)
                i = T.axis.opaque(1, 0)
                T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns])
                T.writes(Y[0:batch, 0:8, 0:columns])
                buffer = T.sblock_alloc_buffer((32,), scope="local")
                for v_2, v_3 in T.grid(8, 4):
                    with T.sblock("init_3"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads()
                        T.writes(buffer[r * 4 + v_4])
                        buffer[r * 4 + v_4] = T.float32(0.0)
                for v_2 in range(16):
                    with T.sblock("step_3"):
                        k = T.axis.opaque(16, v_2)
                        T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:32])
                        T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:32])
                        with T.sblock("fma_4"):
                            T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:32])
                            T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:32])
                            buffer[0:4] = buffer[T.Ramp(0, 1, 4)] + T.Broadcast(W[b, k, i * 8], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[4:8] = buffer[T.Ramp(4, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 1], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[8:12] = buffer[T.Ramp(8, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 2], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[12:16] = buffer[T.Ramp(12, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 3], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[16:20] = buffer[T.Ramp(16, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 4], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[20:24] = buffer[T.Ramp(20, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 5], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[24:28] = buffer[T.Ramp(24, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 6], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                            buffer[28:32] = buffer[T.Ramp(28, 1, 4)] + T.Broadcast(W[b, k, i * 8 + 7], 4) * X[b, k, T.Ramp(columns // 16 * 16 + m * 4, 1, 4)]
                for v_2, v_3 in T.grid(8, 4):
                    with T.sblock("finish_3"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads(buffer[r * 4 + v_4])
                        T.writes(Y[b, i * 8 + r, columns // 16 * 16 + m * 4 + v_4])
                        Y[b, i * 8 + r, columns // 16 * 16 + m * 4 + v_4] = buffer[r * 4 + v_4]
    for v in T.parallel(batch):
        for v_1 in range(columns % 4):
            with T.sblock("tile_4"):
                b = T.axis.opaque(2147483647, v)
                m = T.axis.opaque(2147483647, v_1)
                i = T.axis.opaque(1, 0)
                T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns])
                T.writes(Y[0:batch, 0:8, 0:columns])
                buffer = T.sblock_alloc_buffer((8,), scope="local")
                for v_2, v_3 in T.grid(8, 1):
                    with T.sblock("init_4"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads()
                        T.writes(buffer[r + v_4])
                        buffer[r + v_4] = T.float32(0.0)
                for v_2 in range(16):
                    with T.sblock("step_4"):
                        k = T.axis.opaque(16, v_2)
                        T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:8])
                        T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:8])
                        with T.sblock("fma_8"):
                            T.reads(W[0:batch, 0:16, 0:8], X[0:batch, 0:16, 0:columns], Y[0:batch, 0:8, 0:columns], buffer[0:8])
                            T.writes(Y[0:batch, 0:8, 0:columns], buffer[0:8])
                            buffer[0:8] = buffer[T.Ramp(0, 1, 8)] + W[b, k, T.Ramp(i * 8, 1, 8)] * T.Broadcast(X[b, k, columns // 4 * 4 + m], 8)
                for v_2, v_3 in T.grid(8, 1):
                    with T.sblock("finish_4"):
                        r, v_4 = T.axis.remap("SS", [v_2, v_3])
                        T.reads(buffer[r + v_4])
                        T.writes(Y[b, i * 8 + r, columns // 4 * 4 + m + v_4])
                        Y[b, i * 8 + r, columns // 4 * 4 + m + v_4] = buffer[r + v_4]
